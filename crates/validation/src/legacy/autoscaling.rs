//! Autoscalers of `autoscaling/v2beta1`: each metric had fields of its own for what is wanted and what is.

use serde_json::{Map, Value, json};

const WANTED: &str = "/spec/metrics";
const SEEN: &str = "/status/currentMetrics";

pub(super) fn to_current(object: &mut Value) {
    each(object, WANTED, |kind, source| current(kind, source, "target"));
    each(object, SEEN, |kind, source| current(kind, source, "current"));
}

pub(super) fn to_legacy(object: &mut Value) {
    each(object, WANTED, |kind, source| legacy(kind, source, "target"));
    each(object, SEEN, |kind, source| legacy(kind, source, "current"));
}

fn each(object: &mut Value, list: &str, change: impl Fn(&str, &mut Map<String, Value>)) {
    let list = object.pointer_mut(list).and_then(Value::as_array_mut);
    for metric in list.into_iter().flatten() {
        for (kind, source) in metric.as_object_mut().into_iter().flatten() {
            if let Some(source) = source.as_object_mut() {
                change(kind, source);
            }
        }
    }
}

/// The names of a metric's amounts there and here, by what they are about.
fn amounts(kind: &str, side: &str) -> [(String, &'static str); 3] {
    let upper = |name: &str| format!("{side}{name}");
    let value = match (kind, side) {
        // Of objects the average has no side.
        ("object", _) => "averageValue".to_owned(),
        _ => upper("AverageValue"),
    };
    [
        (upper("AverageUtilization"), "averageUtilization"),
        (value, "averageValue"),
        (upper("Value"), "value"),
    ]
}

fn current(kind: &str, source: &mut Map<String, Value>, side: &str) {
    if kind == "object"
        && let Some(described) = source.remove("target")
    {
        source.insert("describedObject".into(), described);
    }
    let mut wanted = Map::new();
    for (old, new) in amounts(kind, side) {
        // The plain value of an object is only a number that had to be there beside an average.
        let is_filler = |v: &Value| new == "value" && v == "0";
        if let Some(value) = source.remove(&old).filter(|v| !v.is_null() && !is_filler(v)) {
            wanted.insert(new.into(), value);
        }
    }
    if side == "target" {
        let kind = ["averageUtilization", "averageValue", "value"]
            .into_iter()
            .find(|key| wanted.contains_key(*key));
        let kind = match kind {
            Some("averageUtilization") => "Utilization",
            Some("averageValue") => "AverageValue",
            _ => "Value",
        };
        wanted.insert("type".into(), kind.into());
    }
    source.insert(side.into(), wanted.into());
    let selector = if kind == "external" { "metricSelector" } else { "selector" };
    if let Some(name) = source.remove("metricName") {
        let mut metric = json!({ "name": name });
        if let Some(selector) = source.remove(selector) {
            metric["selector"] = selector;
        }
        source.insert("metric".into(), metric);
    }
}

fn legacy(kind: &str, source: &mut Map<String, Value>, side: &str) {
    let told = source.remove(side).unwrap_or_default();
    for (old, new) in amounts(kind, side) {
        if let Some(value) = told.get(new).filter(|v| !v.is_null()) {
            source.insert(old, value.clone());
        }
    }
    if kind == "object" {
        if let Some(described) = source.remove("describedObject") {
            source.insert("target".into(), described);
        }
        source.entry(format!("{side}Value")).or_insert_with(|| "0".into());
    }
    if let Some(metric) = source.remove("metric") {
        source.insert("metricName".into(), metric["name"].clone());
        let selector = if kind == "external" { "metricSelector" } else { "selector" };
        if !metric["selector"].is_null() {
            source.insert(selector.into(), metric["selector"].clone());
        }
    }
}
