//! Kinds whose rules fill a page together: leases, runtime classes, priority classes, slices of
//! endpoints.

use std::collections::HashSet;

use api::names;
use serde_json::Value;

use crate::check::At;
use crate::core::pod;
use crate::formats;
use crate::shared::endpoint_ip;
use crate::{Kind, PLAIN};

pub(crate) static LEASE: Kind = Kind {
    create: |lease| lease_spec(&lease.get("spec")),
    update: |lease| lease_spec(&lease.get("spec")),
    ..PLAIN
};

fn lease_spec(spec: &At<'_>) {
    let (duration, transitions) = (spec.get("leaseDurationSeconds"), spec.get("leaseTransitions"));
    if duration.int().is_some_and(|n| n <= 0) {
        duration.invalid("must be greater than 0");
    }
    transitions.non_negative();
    let strategy = spec.get("strategy");
    if !strategy.is_absent() {
        // Upstream names the field twice.
        let at = strategy.get("strategy");
        let at = at.with(strategy.value());
        if !strategy.text().contains('/') {
            at.one_of(&["OldestEmulationVersion"]);
        } else {
            at.named(names::qualified_name);
        }
    }
    let holder = spec.get("preferredHolder");
    if !holder.is_empty() && strategy.is_empty() {
        holder.forbidden("may only be specified if `strategy` is defined");
    }
}

pub(crate) static RUNTIME_CLASS: Kind = Kind {
    create: |class| {
        let handler = class.get("handler");
        if handler.need() {
            handler.named(names::dns_label);
        }
        let overhead = class.get("overhead");
        if !overhead.is_absent() {
            pod::overhead(&overhead, &overhead.value()["podFixed"]);
        }
        let scheduling = class.get("scheduling");
        scheduling.get("nodeSelector").labels();
        let list = scheduling.get("tolerations");
        pod::tolerations(&list);
        let key = |t: &Value| {
            ["key", "operator", "value", "effect"].map(|k| t[k].as_str().unwrap_or("").to_owned())
        };
        let mut known = HashSet::new();
        for toleration in list.items() {
            if !known.insert(key(toleration.value())) {
                toleration.duplicate_struct("core.Toleration", "");
            }
        }
    },
    update: |class| {
        let handler = class.get("handler");
        if !handler.unchanged() {
            handler.invalid_text("field is immutable");
        }
    },
    anew: true,
    ..PLAIN
};

/// The most a class of users may be worth; the rest is the system's.
const PRIORITY_MAX: i64 = 1_000_000_000;

pub(crate) static PRIORITY_CLASS: Kind = Kind {
    create: |class| {
        let meta = class.get("metadata");
        let (name, value) = (meta.get("name"), class.get("value"));
        if name.text().starts_with("system-") {
            system_class(class, &name);
        } else if value.number() > PRIORITY_MAX {
            value.forbidden(&format!(
                "maximum allowed value of a user defined priority is {PRIORITY_MAX}"
            ));
        }
        let policy = class.get("preemptionPolicy");
        if !policy.is_absent() {
            policy.need_one_of(&["PreemptLowerPriority", "Never"]);
        }
    },
    update: |class| {
        let (value, policy) = (class.get("value"), class.get("preemptionPolicy"));
        let before = value.old().and_then(Value::as_i64).unwrap_or(0);
        if value.number() != before {
            value.forbidden("may not be changed in an update.");
        }
        policy.immutable();
    },
    ..PLAIN
};

fn system_class(class: &At<'_>, name: &At<'_>) {
    let known =
        [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];
    let value = class.get("value").number();
    let why = match known.iter().find(|(known, _)| *known == name.text()) {
        None => format!("{} is not a known system priority class", name.text()),
        Some((_, expected)) if *expected != value => {
            format!("value of {} PriorityClass must be {expected}", name.text())
        }
        Some(_) if class.get("globalDefault").is_true() => {
            format!("globalDefault of {} PriorityClass must be false", name.text())
        }
        Some(_) => return,
    };
    name.forbidden(&format!(
        "priority class names with 'system-' prefix are reserved for system use only. error: {why}"
    ));
}

pub(crate) static ENDPOINT_SLICE: Kind = Kind {
    create: slice,
    update: |object| {
        slice(object);
        let kind = object.get("addressType");
        if !kind.unchanged() {
            kind.invalid_text("field is immutable");
        }
    },
    again: true,
    ..PLAIN
};

fn slice(object: &At<'_>) {
    let kind = object.get("addressType");
    kind.need_one_of(&["FQDN", "IPv4", "IPv6"]);
    slice_ports(&object.get("ports"));
    let endpoints = object.get("endpoints");
    if endpoints.len() > 1000 {
        return endpoints.too_many(1000);
    }
    if !endpoints.unchanged() {
        endpoints.items().for_each(|at| endpoint(&at, kind.text()));
    }
}

fn slice_ports(ports: &At<'_>) {
    if ports.len() > 20_000 {
        return ports.too_many(20_000);
    }
    let mut seen: HashSet<String> = HashSet::new();
    for port in ports.items() {
        let (name, app) = (port.get("name"), port.get("appProtocol"));
        if !name.is_empty() {
            name.named(names::dns_label);
        }
        if seen.contains(name.text()) {
            name.duplicate_as(&name.text().into());
        }
        seen.insert(name.text().to_owned());
        let protocol = port.get("protocol");
        if protocol.is_absent() {
            protocol.required("");
        } else {
            protocol.one_of(&["SCTP", "TCP", "UDP"]);
        }
        if !app.is_absent() {
            app.named(names::qualified_name);
        }
    }
}

fn endpoint(at: &At<'_>, kind: &str) {
    let list = at.get("addresses");
    if list.is_empty() {
        list.required("must contain at least 1 address");
    } else if list.len() > 100 {
        list.too_many(100);
    }
    list.items().for_each(|address| endpoint_address(&list, &address, kind));
    let node = at.get("nodeName");
    if !node.is_absent() {
        node.named(names::dns_subdomain);
    }
    let topology = at.get("deprecatedTopology");
    let labels = topology.value().as_object().map_or(0, |m| m.len());
    if labels > 16 {
        topology
            .report("FieldValueTooMany", format!("Too many: {labels}: must have at most 16 items"));
    }
    topology.labels();
    let host = at.get("hostname");
    if !host.is_absent() {
        host.named(names::dns_label);
    }
    let hints = at.get("hints");
    hint(&hints.get("forZones"), names::label_value);
    hint(&hints.get("forNodes"), names::dns_subdomain);
}

fn endpoint_address(list: &At<'_>, address: &At<'_>, kind: &str) {
    let v6 = address.text().contains(':');
    match kind {
        "IPv4" | "IPv6" => {
            let rule = if kind == "IPv4" { formats::ip } else { formats::canonical_ip };
            if !address.sound(|| address.named(rule)) {
                return;
            }
            if v6 != (kind == "IPv6") {
                list.invalid_as(address.value(), &format!("must be an {kind} address"));
            }
            endpoint_ip(address);
        }
        "FQDN" => full_name(address),
        _ => {}
    }
}

fn full_name(at: &At<'_>) {
    if !at.need() {
        return;
    }
    let name = at.text().strip_suffix('.').unwrap_or(at.text());
    let faults = names::dns_subdomain(name);
    if !faults.is_empty() {
        return at.invalid_as(&name.into(), &faults.join(","));
    }
    if name.split('.').count() < 2 {
        let detail = "should be a domain with at least two segments separated by dots";
        return at.invalid_as(&name.into(), detail);
    }
    if let Some(label) = name.split('.').find(|label| !names::dns_label(label).is_empty()) {
        at.invalid_as(&label.into(), &names::dns_label(label).join(","));
    }
}

fn hint(list: &At<'_>, rule: fn(&str) -> Vec<String>) {
    if list.len() > 8 {
        return list.too_many(8);
    }
    let mut seen: HashSet<String> = HashSet::new();
    for item in list.items() {
        let name = item.get("name");
        if seen.contains(name.text()) {
            name.duplicate();
        }
        seen.insert(name.text().to_owned());
        name.named(rule);
    }
}
