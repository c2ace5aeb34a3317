//! Defaults of pods and templates that depend on other fields.

use serde_json::{Map, Value, json};

use super::aggregate;
use crate::shared::quantity::{is_huge_page, is_overcommit_allowed};
use crate::value::{items_mut, set_default};

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Pods only; in a template these are left for the pod to decide.
pub(super) fn default_pod(object: &mut Value) {
    let spec = &mut object["spec"];
    default_spec(spec);
    for kind in ["initContainers", "containers"] {
        items_mut(spec, kind).for_each(requests_from_limits);
    }
    pod_resources(spec);
    set_default(spec, "enableServiceLinks", true);
    // A grace below zero means the shortest one.
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|s| s < 0) {
        spec["terminationGracePeriodSeconds"] = 1.into();
    }
}

fn requests_from_limits(container: &mut Value) {
    let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) else {
        return;
    };
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else { return };
    let requests = resources.entry("requests").or_insert_with(|| json!({}));
    if requests.is_null() {
        *requests = json!({});
    }
    let Some(requests) = requests.as_object_mut() else { return };
    for (name, limit) in limits {
        requests.entry(name).or_insert(limit);
    }
    if requests.is_empty() {
        resources.remove("requests");
    }
}

/// What a pod as a whole asks for follows from its limits and its containers.
fn pod_resources(spec: &mut Value) {
    let empty = |key: &str| spec["resources"][key].as_object().is_none_or(Map::is_empty);
    if !spec["resources"].is_object() || (empty("limits") && empty("requests")) {
        return;
    }
    let has_limits = !empty("limits");
    let names = |what: &str| {
        let containers = ["containers", "initContainers"].into_iter();
        let all = containers.flat_map(|k| spec[k].as_array().into_iter().flatten());
        let mut names: Vec<String> = all
            .flat_map(|c| c["resources"][what].as_object().into_iter().flatten())
            .map(|(name, _)| name.clone())
            .collect();
        names.dedup();
        names
    };
    let huge: Vec<_> = names("limits").into_iter().filter(|n| is_huge_page(n)).collect();
    let asked: Vec<_> = names("requests")
        .into_iter()
        .filter(|n| matches!(n.as_str(), "cpu" | "memory") && is_overcommit_allowed(n))
        .collect();
    for name in huge {
        if spec["resources"]["requests"][&name].is_null() {
            let amount = aggregate(spec, "limits", &name).to_string();
            fill(&mut spec["resources"], "limits", &name, amount.into());
        }
    }
    if !has_limits {
        return;
    }
    for name in asked {
        let amount = aggregate(spec, "requests", &name).to_string();
        fill(&mut spec["resources"], "requests", &name, amount.into());
    }
    let limits = spec["resources"]["limits"].as_object().cloned().unwrap_or_default();
    for (name, limit) in limits {
        if matches!(name.as_str(), "cpu" | "memory") || is_huge_page(&name) {
            fill(&mut spec["resources"], "requests", &name, limit);
        }
    }
}

fn fill(resources: &mut Value, what: &str, name: &str, amount: Value) {
    set_default(resources, what, json!({}));
    set_default(&mut resources[what], name, amount);
}

/// The spec of a template, and its metadata's leftovers.
pub(crate) fn default_template(template: &mut Value) {
    if let Some(spec) = template.get_mut("spec") {
        default_spec(spec);
    }
}

/// Defaults of any pod spec.
pub(crate) fn default_spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    let host_network = spec["hostNetwork"] == true;
    for kind in CONTAINERS {
        for container in items_mut(spec, kind) {
            default_container(container, host_network && kind != "ephemeralContainers");
        }
    }
    for volume in items_mut(spec, "volumes") {
        let named =
            volume.as_object().map_or(0, |v| v.iter().filter(|(_, v)| !v.is_null()).count());
        if named == usize::from(volume.get("name").is_some()) {
            volume["emptyDir"] = json!({});
        }
        if let Some(image) = volume.get_mut("image").filter(|i| i.is_object()) {
            let policy = pull_policy(image["reference"].as_str().unwrap_or(""));
            set_default(image, "pullPolicy", policy);
        }
    }
    service_account(spec);
}

/// The deprecated alias follows the name.
fn service_account(spec: &mut Value) {
    let text =
        |spec: &Value, key: &str| spec[key].as_str().filter(|t| !t.is_empty()).map(str::to_owned);
    if let Some(account) = text(spec, "serviceAccountName") {
        spec["serviceAccount"] = account.into();
    } else if let Some(account) = text(spec, "serviceAccount") {
        spec["serviceAccountName"] = account.into();
    }
    for key in ["serviceAccount", "serviceAccountName"] {
        if spec.get(key).is_some_and(Value::is_null) {
            spec.as_object_mut().map(|s| s.remove(key));
        }
    }
}

fn default_container(container: &mut Value, host_network: bool) {
    let policy = pull_policy(container["image"].as_str().unwrap_or(""));
    set_default(container, "imagePullPolicy", policy);
    if host_network {
        for port in items_mut(container, "ports") {
            if port["hostPort"].as_i64().unwrap_or(0) == 0 {
                port["hostPort"] = port["containerPort"].clone();
            }
        }
    }
}

/// Images without a fixed version are pulled each time.
fn pull_policy(image: &str) -> &'static str {
    if is_latest(image) { "Always" } else { "IfNotPresent" }
}

/// No tag, or `latest`, and no digest.
fn is_latest(image: &str) -> bool {
    if image.contains('@') || !is_reference(image) {
        return false;
    }
    let name = image.rsplit('/').next().unwrap_or("");
    name.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

/// A name that can be an image's at all; of others upstream tells no tag.
fn is_reference(image: &str) -> bool {
    /// The longest name of a repository.
    const NAME_MAX: usize = 255;
    let (path, last) = image.rsplit_once('/').unwrap_or(("", image));
    let repository =
        path.len() + usize::from(!path.is_empty()) + last.split(':').next().map_or(0, str::len);
    if repository > NAME_MAX {
        return false;
    }
    let name = image.rsplit('/').next().unwrap_or("");
    let name = name.split(':').next().unwrap_or("");
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    edge(name.chars().next())
        && edge(name.chars().last())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c))
}
