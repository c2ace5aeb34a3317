//! Containers of the three sorts.

use std::collections::HashSet;

use api::names;
use serde_json::Value;

use super::{Pod, env, mounts, probes, resources, security};
use crate::check::At;
use crate::formats;

pub(super) fn containers(list: &At<'_>, pod: &Pod<'_>) {
    if !list.need() {
        return;
    }
    let mut seen: HashSet<&str> = HashSet::new();
    for (at, value) in slice(list.value()).iter().enumerate() {
        let container = list.index(at);
        common(&container, pod);
        unique_name(&container, value, &mut seen);
        probes::lifecycle(&container, pod);
        probes::probes(&container, pod);
        restart_policy(&container);
    }
    host_ports(slice(list.value()), list);
}

pub(super) fn init_containers(list: &At<'_>, pod: &Pod<'_>) {
    let mut seen: HashSet<&str> = names_of(&pod.spec["containers"]).into_iter().collect();
    for (at, value) in slice(list.value()).iter().enumerate() {
        let container = list.index(at);
        common(&container, pod);
        let policy = container.get("restartPolicy");
        if !policy.is_absent() || !container.get("restartPolicyRules").is_empty() {
            restart_policy(&container);
        }
        unique_name(&container, value, &mut seen);
        // Upstream numbers the one container it looks at as the first.
        host_ports(std::slice::from_ref(value), list);
        if policy.text() == "Always" {
            probes::lifecycle(&container, pod);
            probes::probes(&container, pod);
        } else {
            for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if !container.get(field).is_absent() {
                    container.get(field).forbidden(
                        "may not be set for init containers without restartPolicy=Always",
                    );
                }
            }
            for resize in container.get("resizePolicy").items() {
                let policy = resize.get("restartPolicy");
                if policy.text() == "RestartContainer" {
                    policy.invalid(
                        "must not be set to 'RestartContainer' for non-sidecar initContainers",
                    );
                }
            }
        }
    }
}

/// What a debugging container may say; all else is forbidden.
const EPHEMERAL_FORBIDDEN: [&str; 9] = [
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
];

pub(super) fn ephemeral_containers(list: &At<'_>, pod: &Pod<'_>) {
    const WHY: &str = "cannot be set for an Ephemeral Container";
    let others: HashSet<&str> =
        [names_of(&pod.spec["containers"]), names_of(&pod.spec["initContainers"])]
            .concat()
            .into_iter()
            .collect();
    let mut seen = others.clone();
    for (at, value) in slice(list.value()).iter().enumerate() {
        let container = list.index(at);
        common(&container, pod);
        only_for_pod(&container);
        unique_name(&container, value, &mut seen);
        let target = container.get("targetContainerName");
        if !target.is_empty() && !others.contains(target.text()) {
            target.not_found();
        }
        for field in EPHEMERAL_FORBIDDEN {
            if !container.get(field).is_empty() {
                container.get(field).forbidden(WHY);
            }
        }
        for mount in container.get("volumeMounts").items() {
            for field in ["subPath", "subPathExpr"] {
                if !mount.get(field).is_empty() {
                    mount.get(field).forbidden(WHY);
                }
            }
        }
    }
}

fn slice(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn names_of(list: &Value) -> Vec<&str> {
    slice(list).iter().map(|c| c["name"].as_str().unwrap_or("")).collect()
}

fn unique_name<'a>(container: &At<'_>, value: &'a Value, seen: &mut HashSet<&'a str>) {
    let name = value["name"].as_str().unwrap_or("");
    if seen.contains(&name) {
        container.get("name").duplicate_as(&name.into());
    } else {
        seen.insert(name);
    }
}

/// Spaces around an image's name: refused in pods, let through in templates.
pub(super) fn only_for_pod(container: &At<'_>) {
    let image = container.get("image");
    if image.text().trim() != image.text() {
        image.invalid("must not have leading or trailing whitespace");
    }
}

fn common(container: &At<'_>, pod: &Pod<'_>) {
    let name = container.get("name");
    if name.need() {
        name.named(names::dns_label);
    }
    container.get("image").need();
    container.get("terminationMessagePolicy").need_one_of(&["File", "FallbackToLogsOnError"]);
    ports(&container.get("ports"));
    env::variables(&container.get("env"));
    env::variables_from(&container.get("envFrom"));
    mounts::mounts(container, pod);
    mounts::devices(container, pod);
    container.get("imagePullPolicy").need_one_of(&["Always", "IfNotPresent", "Never"]);
    resources::of_container(&container.get("resources"), pod);
    resources::resize_policy(&container.get("resizePolicy"), pod);
    security::container(&container.get("securityContext"), pod);
}

fn ports(list: &At<'_>) {
    let mut seen: HashSet<&str> = HashSet::new();
    for (at, value) in slice(list.value()).iter().enumerate() {
        let port = list.index(at);
        port_name(&port, value, &mut seen);
        let number = port.get("containerPort");
        if number.need() {
            crate::shared::port_number(&number);
        }
        let host = port.get("hostPort");
        if host.number() != 0 {
            crate::shared::port_number(&host);
        }
        port.get("protocol").need_one_of(&["SCTP", "TCP", "UDP"]);
    }
}

fn port_name<'a>(port: &At<'_>, value: &'a Value, seen: &mut HashSet<&'a str>) {
    let name = value["name"].as_str().unwrap_or("");
    if name.is_empty() {
        return;
    }
    let at = port.get("name");
    let faults = formats::port_name(name);
    faults.iter().for_each(|fault| at.invalid(fault));
    if faults.is_empty() && seen.contains(&name) {
        at.duplicate();
    } else if faults.is_empty() {
        seen.insert(name);
    }
}

/// Two containers cannot have one port of the node.
fn host_ports(containers: &[Value], list: &At<'_>) {
    let mut taken: Vec<String> = Vec::new();
    for (at, container) in containers.iter().enumerate() {
        for (index, port) in slice(&container["ports"]).iter().enumerate() {
            let number = port["hostPort"].as_i64().unwrap_or(0);
            if number == 0 {
                continue;
            }
            let text = |key: &str| port[key].as_str().unwrap_or("");
            let key = format!("{}/{}/{number}", text("protocol"), text("hostIP"));
            if taken.contains(&key) {
                let container = list.index(at);
                let ports = container.get("ports");
                ports.index(index).get("hostPort").duplicate_as(&key.into());
            } else {
                taken.push(key);
            }
        }
    }
}

fn restart_policy(container: &At<'_>) {
    let (policy, rules) = (container.get("restartPolicy"), container.get("restartPolicyRules"));
    if policy.is_absent() {
        if !rules.is_empty() {
            policy.required("must specify restartPolicy when restart rules are used");
        } else {
            return;
        }
    } else {
        policy.one_of(&["Always", "Never", "OnFailure"]);
    }
    if rules.len() > 20 {
        rules.too_many(20);
    }
    for rule in rules.items() {
        rule.get("action").one_of(&["Restart", "RestartAllContainers"]);
        let codes = rule.get("exitCodes");
        if codes.is_absent() {
            codes.required("must be specified");
            continue;
        }
        codes.get("operator").one_of(&["In", "NotIn"]);
        if codes.get("values").len() > 255 {
            codes.get("values").too_many(255);
        }
    }
}
