//! Versions of the past: how their objects become those of today, and what was assumed in them.
//!
//! Types and names are data (`legacy.txt`, the schemas of those versions); here is what data cannot say. What a
//! version of today cannot hold (`rollbackTo`, `templateGeneration`) is dropped.

mod autoscaling;
mod ingress;

use api::registry::Resource;
use serde_json::{Value, json};

/// Turns an object into one of the version that took its place.
pub(crate) fn to_current(row: &Resource, object: &mut Value) {
    let current = row.current();
    if object["apiVersion"].is_string() {
        object["apiVersion"] = current.kind_api_version().into();
    }
    match (row.group, row.version, row.name) {
        (_, _, "deployments") => drop_key(object, "rollbackTo"),
        ("extensions", _, "daemonsets") => drop_key(object, "templateGeneration"),
        (_, _, "ingresses") => ingress::to_current(object),
        ("autoscaling", "v2beta1", _) => autoscaling::to_current(object),
        ("policy", "v1beta1", _) => empty_selector(object, &json!({}), &NOTHING),
        _ => {}
    }
}

/// Turns an object of today into one of the version.
pub(crate) fn to_legacy(row: &Resource, object: &mut Value) {
    object["apiVersion"] = row.kind_api_version().into();
    match (row.group, row.version, row.name) {
        (_, _, "ingresses") => ingress::to_legacy(object),
        ("autoscaling", "v2beta1", _) => autoscaling::to_legacy(object),
        ("policy", "v1beta1", _) => empty_selector(object, &NOTHING, &json!({})),
        _ => {}
    }
}

/// What was assumed, before the defaults of the types.
pub fn default(row: &Resource, object: &mut Value) {
    let selects = match (row.group, row.version) {
        ("extensions", _) => matches!(row.name, "deployments" | "daemonsets" | "replicasets"),
        ("apps", "v1beta1") => matches!(row.name, "deployments" | "statefulsets"),
        _ => false,
    };
    if selects {
        from_template(object);
    }
    match (row.group, row.version, row.name) {
        ("extensions", _, "daemonsets") | ("apps", "v1beta1", "statefulsets") => {
            set_default(&mut object["spec"], "updateStrategy", "type", "OnDelete");
        }
        ("extensions", _, "deployments") => one_at_a_time(&mut object["spec"]),
        ("policy", ..) => set(&mut object["spec"], "minAvailable", "maxUnavailable"),
        _ => {}
    }
}

/// Selector and labels are those of the template.
fn from_template(object: &mut Value) {
    let labels = object["spec"]["template"]["metadata"]["labels"].clone();
    if labels.as_object().is_none_or(serde_json::Map::is_empty) {
        return;
    }
    if object["spec"]["selector"].is_null() {
        object["spec"]["selector"] = json!({ "matchLabels": labels });
    }
    let own = &object["metadata"]["labels"];
    if own.as_object().is_none_or(serde_json::Map::is_empty) {
        object["metadata"]["labels"] = labels;
    }
}

/// A rolling update of `extensions/v1beta1` exchanged one pod at a time.
fn one_at_a_time(spec: &mut Value) {
    if spec["strategy"]["type"].as_str().unwrap_or("RollingUpdate") != "RollingUpdate" {
        return;
    }
    let mut rolling = match spec["strategy"]["rollingUpdate"].take() {
        Value::Object(map) => map,
        _ => serde_json::Map::new(),
    };
    for key in ["maxUnavailable", "maxSurge"] {
        if rolling.get(key).is_none_or(Value::is_null) {
            rolling.insert(key.into(), 1.into());
        }
    }
    spec["strategy"]["rollingUpdate"] = rolling.into();
}

fn set_default(spec: &mut Value, part: &str, key: &str, value: &str) {
    if spec.is_object() && spec[part][key].is_null() {
        spec[part][key] = value.into();
    }
}

/// A budget that says nothing keeps one pod.
fn set(spec: &mut Value, key: &str, unless: &str) {
    if spec.is_object() && spec[key].is_null() && spec[unless].is_null() {
        spec[key] = 1.into();
    }
}

fn drop_key(object: &mut Value, key: &str) {
    if let Some(spec) = object["spec"].as_object_mut() {
        spec.remove(key);
    }
}

/// Selects nothing in `policy/v1` (upstream's own conversion of the empty selector, which selected nothing in
/// `v1beta1` and selects everything now).
static NOTHING: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| {
    json!({"matchExpressions":
        [{"key": "pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match", "operator": "Exists"}]})
});

fn empty_selector(object: &mut Value, from: &Value, to: &Value) {
    if object["spec"]["selector"] == *from {
        object["spec"]["selector"] = to.clone();
    }
}

/// The warning of every request for such a version, in upstream's words.
pub(crate) fn deprecation(row: &Resource) -> Option<String> {
    let legacy = row.legacy.as_ref()?;
    let (old, new) = (row.kind_api_version(), legacy.current.kind_api_version());
    let (kind, deprecated, removed) = (row.kind, legacy.deprecated, legacy.removed);
    Some(format!(
        "{old} {kind} is deprecated in v{deprecated}+, unavailable in v{removed}+; use {new} {kind}"
    ))
}

#[cfg(test)]
mod tests;
