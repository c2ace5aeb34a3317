//! Ports of a pod's containers that are defined twice.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::Warnings;
use crate::check::At;
use crate::value::{items, text};

const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// A port that was seen, and the path by which warnings name it.
struct Port<'a> {
    path: String,
    host_ip: &'a str,
    host_port: i64,
}

/// Ports of one number and protocol. A port is compared only with those that it may clash with, so
/// that looking at `n` ports costs `n` steps and one more for each warning.
#[derive(Default)]
struct Group<'a> {
    all: Vec<Port<'a>>,
    /// Positions by port of the host.
    by_host_port: HashMap<i64, Vec<usize>>,
    /// Positions by port and address of the host.
    by_host: HashMap<(i64, &'a str), Vec<usize>>,
}

impl<'a> Group<'a> {
    /// Earlier ports that clash with this one, in order.
    fn clashes(&self, port: &Port<'a>) -> Vec<usize> {
        if port.host_port == 0 {
            return (0..self.all.len()).collect();
        }
        let at = |key: &(i64, &'a str)| self.by_host.get(key).into_iter().flatten().copied();
        let unbound = self.by_host_port.get(&0).into_iter().flatten().copied();
        let mut found: Vec<usize> = match port.host_ip {
            "" => self.by_host_port.get(&port.host_port).into_iter().flatten().copied().collect(),
            ip => at(&(port.host_port, ip)).chain(at(&(port.host_port, ""))).collect(),
        };
        found.extend(unbound);
        found.sort_unstable();
        found
    }

    fn add(&mut self, port: Port<'a>) {
        let at = self.all.len();
        self.by_host_port.entry(port.host_port).or_default().push(at);
        self.by_host.entry((port.host_port, port.host_ip)).or_default().push(at);
        self.all.push(port);
    }
}

pub(super) fn ports(warnings: &Warnings, spec: &At<'_>) {
    let mut groups: HashMap<(i64, &str), Group<'_>> = HashMap::new();
    each(warnings, spec, |path, port| {
        let number = |key: &str| port[key].as_i64().unwrap_or(0);
        let this = Port { path, host_ip: text(&port["hostIP"]), host_port: number("hostPort") };
        if !this.host_ip.is_empty() && this.host_port == 0 {
            warnings.add(format!("{}: hostIP set without hostPort: {}", this.path, shown(port)));
        }
        let key = (number("containerPort"), text(&port["protocol"]));
        let group = groups.entry(key).or_default();
        for at in group.clashes(&this) {
            if warnings.is_full() {
                return;
            }
            let other = &group.all[at];
            let how = if (this.host_ip, this.host_port) == (other.host_ip, other.host_port) {
                "duplicate"
            } else if this.host_port == 0 || other.host_port == 0 {
                "overlapping"
            } else {
                "dangerously ambiguous"
            };
            warnings.add(format!("{}: {how} port definition with {}", this.path, other.path));
        }
        group.add(this);
    });
    names(warnings, spec);
}

fn names(warnings: &Warnings, spec: &At<'_>) {
    let mut seen: HashMap<&str, String> = HashMap::new();
    each(warnings, spec, |path, port| {
        let name = text(&port["name"]);
        if name.is_empty() {
            return;
        }
        if let Some(other) = seen.get(name) {
            warnings.add(format!("{path}: duplicate port name {name:?} with {other}, services and probes that select ports by name will use {other}"));
        } else {
            seen.insert(name, path);
        }
    });
}

/// Every port with its path, until there are warnings enough.
fn each<'a>(warnings: &Warnings, spec: &At<'a>, mut visit: impl FnMut(String, &'a Value)) {
    for list in LISTS {
        for (at, container) in items(spec.value(), list).enumerate() {
            for (port_at, port) in items(container, "ports").enumerate() {
                if warnings.is_full() {
                    return;
                }
                visit(format!("{spec}.{list}[{at}].ports[{port_at}]"), port);
            }
        }
    }
}

/// A port as Go prints the structure.
fn shown(port: &Value) -> String {
    let mut out = String::from("{");
    for (at, (name, key, number)) in [
        ("Name", "name", false),
        ("HostPort", "hostPort", true),
        ("ContainerPort", "containerPort", true),
        ("Protocol", "protocol", false),
        ("HostIP", "hostIP", false),
    ]
    .into_iter()
    .enumerate()
    {
        let gap = if at > 0 { " " } else { "" };
        let value = match number {
            true => port[key].as_i64().unwrap_or(0).to_string(),
            false => text(&port[key]).to_owned(),
        };
        let _ = write!(out, "{gap}{name}:{value}");
    }
    out + "}"
}
