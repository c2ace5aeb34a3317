//! Pods and pod templates: defaults that depend on other fields, and what a pod spec must be.

use api::names;
use api::quantity::Quantity;
use serde_json::{Value, json};

use crate::check::At;
use crate::value::{items_mut, set_default};
use crate::{Kind, PLAIN};

pub(crate) static KIND: Kind = Kind {
    default,
    create: |pod| spec(&pod.get("spec")),
    update: |pod| {
        spec(&pod.get("spec"));
        validate_update(&pod.get("spec"));
    },
    ..PLAIN
};

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

fn default(object: &mut Value) {
    // Pods only: in a template it is left for the pod to decide.
    set_default(&mut object["spec"], "enableServiceLinks", true);
    default_spec(&mut object["spec"]);
}

/// Defaults of a pod spec that depend on other fields; also used for templates.
pub(crate) fn default_spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    let host_network = spec["hostNetwork"] == true;
    for kind in CONTAINERS {
        for container in items_mut(spec, kind) {
            default_container(container, host_network);
        }
    }
    for volume in items_mut(spec, "volumes") {
        let sources = volume.as_object().map_or(0, |v| v.len());
        if sources == 1 {
            volume["emptyDir"] = json!({});
        }
    }
    // The deprecated alias follows the name.
    if let Some(account) = spec["serviceAccountName"].as_str().map(str::to_owned) {
        spec["serviceAccount"] = account.into();
    } else if let Some(account) = spec["serviceAccount"].as_str().map(str::to_owned) {
        spec["serviceAccountName"] = account.into();
    }
}

fn default_container(container: &mut Value, host_network: bool) {
    let image = container["image"].as_str().unwrap_or("");
    let policy = if is_latest(image) { "Always" } else { "IfNotPresent" };
    set_default(container, "imagePullPolicy", policy);
    if host_network {
        for port in items_mut(container, "ports") {
            let number = port["containerPort"].clone();
            set_default(port, "hostPort", number);
        }
    }
    let resources = &mut container["resources"];
    let limits = resources["limits"].as_object().cloned().unwrap_or_default();
    for (name, limit) in limits {
        set_default(resources, "requests", json!({}));
        set_default(&mut resources["requests"], &name, limit);
    }
}

/// No tag, or `latest`, and no digest.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let name = image.rsplit('/').next().unwrap_or("");
    name.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

/// Only images, tolerations (added), grace and deadlines may change.
fn validate_update(spec: &At<'_>) {
    let Some(old) = spec.old() else { return };
    let mut masked = spec.value().clone();
    for kind in ["containers", "initContainers"] {
        for (at, container) in items_mut(&mut masked, kind).enumerate() {
            let before = &old[kind][at];
            container["image"] = before["image"].clone();
            container["resources"] = before["resources"].clone();
        }
    }
    for key in [
        "activeDeadlineSeconds",
        "tolerations",
        "terminationGracePeriodSeconds",
        "ephemeralContainers",
        "nodeName",
        "schedulingGates",
        "resources",
    ] {
        masked[key] = old[key].clone();
    }
    let mut old = old.clone();
    // Indexing writes nulls where a key is absent; the comparison must not see them.
    strip_nulls(&mut masked);
    strip_nulls(&mut old);
    if masked == old {
        return;
    }
    spec.forbidden("pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)");
}

fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

/// The checks that keep a pod from being unrunnable.
pub(crate) fn spec(spec: &At<'_>) {
    spec.get("containers").need();
    let mut names_seen: Vec<&str> = Vec::new();
    for kind in CONTAINERS {
        for container in spec.get(kind).items() {
            let name = container.get("name").value().as_str().unwrap_or("");
            if names_seen.contains(&name) && !name.is_empty() {
                container.get("name").duplicate();
            }
            validate_container(&container);
        }
        let all = spec.value()[kind].as_array().into_iter().flatten();
        names_seen.extend(all.filter_map(|c| c["name"].as_str()));
    }
    validate_volumes(spec);
    spec.get("restartPolicy").one_of(&["Always", "OnFailure", "Never"]);
}

fn validate_container(container: &At<'_>) {
    if container.get("name").need() {
        container.get("name").named(names::dns_label);
    }
    container.get("image").need();
    for port in container.get("ports").items() {
        let number = port.get("containerPort");
        if number.need() {
            number.between(1, 65535);
        }
    }
    let resources = container.get("resources");
    for (resource, limit) in resources.get("limits").entries() {
        let parse = |v: &Value| v.as_str().and_then(|t| Quantity::parse(t).ok());
        let request = &resources.value()["requests"][resource];
        if let (Some(asked), Some(most)) = (parse(request), parse(limit.value()))
            && asked > most
        {
            let detail = format!("must be less than or equal to {resource} limit of {most}");
            resources.get("requests").invalid_as(request, &detail);
        }
    }
}

fn validate_volumes(spec: &At<'_>) {
    let list = spec.value()["volumes"].as_array().map_or(&[][..], Vec::as_slice);
    let names: Vec<&str> = list.iter().filter_map(|v| v["name"].as_str()).collect();
    for (at, volume) in spec.get("volumes").items().enumerate() {
        if names[..at.min(names.len())].contains(&volume.get("name").text()) {
            volume.get("name").duplicate();
        }
    }
    for kind in CONTAINERS {
        for container in spec.get(kind).items() {
            for mount in container.get("volumeMounts").items() {
                if !names.contains(&mount.get("name").text()) {
                    mount.get("name").not_found();
                }
            }
        }
    }
}
