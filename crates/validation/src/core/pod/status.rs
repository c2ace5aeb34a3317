//! Writes to a pod's status.

use std::collections::HashSet;

use api::names;
use serde_json::Value;

use super::annotations;
use crate::check::At;
use crate::formats::sloppy_ip;
use crate::shared::{legacy_ip, texts};

const STATUSES: [(&str, &str); 3] = [
    ("containerStatuses", "containers"),
    ("initContainerStatuses", "initContainers"),
    ("ephemeralContainerStatuses", ""),
];

pub(super) fn status(pod: &At<'_>) {
    let (meta, spec, status) = (pod.get("metadata"), pod.get("spec"), pod.get("status"));
    let annotations_at = meta.get("annotations");
    annotations::updates(&annotations_at);
    annotations::specific(&annotations_at, &spec);
    conditions(&status.get("conditions"));
    nominated(&status, &spec);
    let generation = status.get("observedGeneration");
    if generation.number() < 0 {
        generation.invalid("must be a non-negative integer");
    }
    let class = status.get("qosClass");
    let before = class.old().and_then(Value::as_str).unwrap_or("");
    if class.old().is_some() && class.text() != before {
        class.invalid_text("field is immutable");
    }
    for (field, containers) in STATUSES {
        transitions(&status.get(field), spec.old().unwrap_or(&Value::Null), containers);
    }
    claim_statuses(&status.get("resourceClaimStatuses"), &spec);
    addresses(&status, "podIPs");
    let hosts = status.get("hostIPs");
    if !hosts.is_empty() {
        let first = hosts.index(0);
        if first.get("ip").text() != status.get("hostIP").text() {
            first.get("ip").invalid_text("must be equal to `hostIP`");
        }
        addresses(&status, "hostIPs");
    }
    for (field, _) in STATUSES {
        users(&status.get(field), spec.value()["os"]["name"].as_str().unwrap_or("linux"));
    }
}

fn conditions(list: &At<'_>) {
    for condition in list.items() {
        let generation = condition.get("observedGeneration");
        if generation.number() < 0 {
            generation.invalid("must be a non-negative integer");
        }
        let kind = condition.get("type");
        if !matches!(kind.text(), "PodScheduled" | "Ready" | "Initialized") {
            condition.get("Type").with(kind.value()).named(names::qualified_name);
        }
    }
}

fn nominated(status: &At<'_>, spec: &At<'_>) {
    let node = status.get("nominatedNodeName");
    let before = node.old().and_then(Value::as_str).unwrap_or("");
    if node.is_empty() || node.text() == before {
        return;
    }
    node.named(names::dns_subdomain);
    let bound = spec.old().is_some_and(|s| s["nodeName"].as_str().is_some_and(|n| !n.is_empty()));
    if bound {
        node.forbidden("may not be set on pods that are already bound to a node");
    }
}

/// A container that has ended for good does not come back.
fn transitions(now: &At<'_>, spec: &Value, containers: &str) {
    let before = now.old().and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    for (at, old) in before.iter().enumerate() {
        let ended = &old["state"]["terminated"];
        if ended.is_null() {
            continue;
        }
        let list = now.value().as_array().into_iter().flatten();
        let next =
            list.filter(|s| s["name"] == old["name"]).find(|s| s["state"]["terminated"].is_null());
        if next.is_some() && !may_restart(spec, containers, old, ended) {
            now.index(at).get("state").forbidden("may not be transitioned to non-terminated state");
        }
    }
}

fn may_restart(spec: &Value, containers: &str, old: &Value, ended: &Value) -> bool {
    let code = ended["exitCode"].as_i64().unwrap_or(0);
    if containers.is_empty() {
        return false;
    }
    if any_restarts_all(spec) {
        return true;
    }
    let mut list = spec[containers].as_array().into_iter().flatten();
    let Some(container) = list.find(|c| c["name"] == old["name"]) else { return false };
    for rule in container["restartPolicyRules"].as_array().into_iter().flatten() {
        let codes = &rule["exitCodes"];
        let listed = codes["values"].as_array().is_some_and(|l| l.iter().any(|v| v == code));
        let matches = if codes["operator"] == "NotIn" { !listed } else { listed };
        if matches && rule["action"] == "Restart" {
            return true;
        }
    }
    let own = container["restartPolicy"].as_str();
    match own.or(spec["restartPolicy"].as_str()) {
        Some("Always") => true,
        Some("OnFailure") => code != 0,
        _ => false,
    }
}

/// A rule anywhere may restart them all.
fn any_restarts_all(spec: &Value) -> bool {
    let lists = ["containers", "initContainers"].into_iter();
    let mut all = lists.flat_map(|k| spec[k].as_array().into_iter().flatten());
    all.any(|c| {
        let mut rules = c["restartPolicyRules"].as_array().into_iter().flatten();
        rules.any(|r| r["action"] == "RestartAllContainers")
    })
}

fn claim_statuses(list: &At<'_>, spec: &At<'_>) {
    let claims = texts(spec.value().get("resourceClaims"), Some("name"));
    let mut seen: HashSet<String> = HashSet::new();
    for status in list.items() {
        let (name, claim) = (status.get("name"), status.get("resourceClaimName"));
        if !claims.contains(&name.text()) {
            name.invalid_text("must match the name of an entry in `spec.resourceClaims`");
        }
        if seen.contains(name.text()) {
            name.duplicate();
        }
        seen.insert(name.text().to_owned());
        if !claim.is_absent() {
            claim.named(names::dns_subdomain);
        }
    }
}

/// At most one address of each family.
fn addresses(status: &At<'_>, field: &str) {
    let list = status.get(field);
    let before = texts(list.old(), Some("ip"));
    for item in list.items() {
        let ip = item.value().get("ip").unwrap_or(&Value::Null);
        legacy_ip(&item.with(ip), &before);
    }
    if list.len() < 2 {
        return;
    }
    let parsed: Vec<_> = list.items().filter_map(|i| sloppy_ip(i.get("ip").text())).collect();
    let dual = parsed.iter().any(|ip| ip.is_ipv4()) && parsed.iter().any(|ip| ip.is_ipv6());
    if !dual || list.len() > 2 {
        let shown: Vec<Value> =
            list.items().map(|i| serde_json::json!({"IP": i.get("ip").text()})).collect();
        list.invalid_as(&shown.into(), "may specify no more than one IP for each IP family");
    }
}

fn users(statuses: &At<'_>, os: &str) {
    for status in statuses.items() {
        let user = status.get("user");
        let linux = user.get("linux");
        if linux.is_absent() {
            continue;
        }
        if os == "windows" {
            linux.forbidden("cannot be set for a windows pod");
            continue;
        }
        let groups = linux.get("supplementalGroups");
        let one = |at: &At<'_>| {
            if !(0..=i64::from(i32::MAX)).contains(&at.number()) {
                at.invalid_number("must be between 0 and 2147483647, inclusive");
            }
        };
        one(&linux.get("uid"));
        one(&linux.get("gid"));
        groups.items().for_each(|group| one(&group));
    }
}
