//! The objects of `metrics.k8s.io/v1beta1`, and their table (metrics-server's columns).

use api::quantity::Quantity;
use serde_json::{Map, Value, json};

use crate::samples::{PodUsage, Usage};

pub const GROUP: &str = "metrics.k8s.io";
pub const VERSION: &str = "v1beta1";

/// What is common to the objects of nodes and pods.
fn object(kind: &str, meta: &Value, usage: &Usage) -> Map<String, Value> {
    let mut shown = Map::new();
    shown.insert("kind".into(), kind.into());
    shown.insert("apiVersion".into(), format!("{GROUP}/{VERSION}").into());
    shown.insert("metadata".into(), meta.clone());
    shown.insert("timestamp".into(), time(usage.at).into());
    shown.insert("window".into(), window(usage.window).into());
    shown
}

/// A NodeMetrics. `labels` are the node's; `now` is told as its creation.
pub fn node_metrics(name: &str, labels: &Value, now: &str, usage: &Usage) -> Value {
    let meta = metadata(None, name, labels, now);
    let mut shown = object("NodeMetrics", &meta, usage);
    shown.insert("usage".into(), amounts(usage));
    shown.into()
}

/// A PodMetrics; none of a pod without containers.
pub fn pod_metrics(
    (namespace, name): (&str, &str),
    labels: &Value,
    now: &str,
    usage: &PodUsage,
) -> Option<Value> {
    let earliest = usage.containers.iter().map(|c| &c.usage).min_by_key(|usage| usage.at)?;
    let meta = metadata(Some(namespace), name, labels, now);
    let mut shown = object("PodMetrics", &meta, earliest);
    let containers = usage.containers.iter();
    let containers: Vec<Value> =
        containers.map(|c| json!({"name": c.name, "usage": amounts(&c.usage)})).collect();
    shown.insert("containers".into(), containers.into());
    Some(shown.into())
}

fn metadata(namespace: Option<&str>, name: &str, labels: &Value, now: &str) -> Value {
    let mut meta = json!({"name": name, "creationTimestamp": now});
    if let Some(namespace) = namespace {
        meta["namespace"] = namespace.into();
    }
    if labels.as_object().is_some_and(|labels| !labels.is_empty()) {
        meta["labels"] = labels.clone();
    }
    meta
}

fn amounts(usage: &Usage) -> Value {
    json!({"cpu": cpu(usage.cpu), "memory": memory(usage.memory)})
}

fn canonical(text: &str) -> String {
    Quantity::parse(text).map_or_else(|_| text.to_owned(), |quantity| quantity.to_string())
}

fn cpu(nanos: u64) -> String {
    canonical(&format!("{nanos}n"))
}

/// In binary units where it is a multiple of one.
fn memory(bytes: u64) -> String {
    match bytes % 1024 {
        0 => canonical(&format!("{}Ki", bytes / 1024)),
        _ => bytes.to_string(),
    }
}

fn time(millis: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(millis).unwrap_or_default();
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// As Go prints a duration.
fn window(millis: i64) -> String {
    let seconds = millis / 1000;
    let minutes = if seconds >= 60 { format!("{}m", seconds / 60) } else { String::new() };
    let rest = format!("{}.{:03}", seconds % 60, millis % 1000);
    format!("{minutes}{}s", rest.trim_end_matches('0').trim_end_matches('.'))
}

/// The resources, as discovery shows them.
pub fn resources() -> Value {
    let one = |name: &str, namespaced: bool, kind: &str| {
        json!({"name": name, "singularName": "", "namespaced": namespaced, "kind": kind,
            "verbs": ["get", "list"]})
    };
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/{VERSION}"),
        "resources": [one("nodes", false, "NodeMetrics"), one("pods", true, "PodMetrics")],
    })
}

/// Columns and rows of objects; what each row says of its object is left to the caller.
pub fn table(objects: &[Value]) -> (Value, Vec<Value>) {
    let quantity = |name: &str| json!({"name": name, "type": "string", "format": "quantity", "description": "", "priority": 0});
    let columns = json!([
        {"name": "Name", "type": "string", "format": "name", "description": "Name of the resource", "priority": 0},
        quantity("cpu"), quantity("memory"),
        {"name": "Window", "type": "string", "format": "duration", "description": "", "priority": 0},
    ]);
    let row = |object: &Value| {
        let (cpu, memory) = total(object);
        json!([object["metadata"]["name"], cpu, memory, object["window"]])
    };
    // A table without rows has no columns, as metrics-server has it.
    let columns = if objects.is_empty() { json!([]) } else { columns };
    (columns, objects.iter().map(row).collect())
}

/// What an object's containers use together, or its node.
fn total(object: &Value) -> (String, String) {
    let containers = object["containers"].as_array();
    let usages: Vec<&Value> = match containers {
        Some(all) => all.iter().map(|container| &container["usage"]).collect(),
        None => vec![&object["usage"]],
    };
    let sum = |key: &str| {
        let amounts = usages.iter().filter_map(|usage| usage[key].as_str());
        let amounts = amounts.filter_map(|text| Quantity::parse(text).ok());
        amounts.reduce(|a, b| a + b).map_or_else(|| "0".into(), |sum| sum.to_string())
    };
    (sum("cpu"), sum("memory"))
}
