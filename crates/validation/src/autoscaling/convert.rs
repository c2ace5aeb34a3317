//! Autoscalers between versions: version 1 keeps what it has no fields for in annotations.

use serde_json::{Map, Value, json};

use super::{UTILIZATION, cpu_metric};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const STATUSES: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

fn is_cpu(metric: &Value) -> bool {
    metric["type"] == "Resource"
        && metric["resource"]["name"] == "cpu"
        && !metric["resource"]["target"]["averageUtilization"].is_null()
}

/// Version 1 as version 2.
pub(crate) fn to_hub(object: &mut Value) {
    object["apiVersion"] = "autoscaling/v2".into();
    let mut kept = take_annotations(object);
    let parsed = |text: Option<Value>| -> Option<Value> {
        serde_json::from_str(text?.as_str()?).ok().filter(|v: &Value| !v.is_null())
    };
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let cpu = spec.remove("targetCPUUtilizationPercentage").and_then(|v| v.as_i64());
    let mut metrics: Vec<Value> = match parsed(kept.remove(METRICS)) {
        Some(Value::Array(list)) => list.iter().map(metric_to_hub).collect(),
        _ => Vec::new(),
    };
    metrics.extend(cpu.map(cpu_metric));
    if metrics.is_empty() {
        metrics.push(cpu_metric(UTILIZATION));
    }
    spec.insert("metrics".into(), metrics.into());
    if let Some(behavior) =
        parsed(kept.remove(BEHAVIOR)).filter(|b| b.as_object().is_some_and(|m| !m.is_empty()))
    {
        spec.insert("behavior".into(), internal_names(&behavior));
    }
    let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) else { return };
    let current = status.remove("currentCPUUtilizationPercentage").and_then(|v| v.as_i64());
    let statuses = match parsed(kept.remove(STATUSES)) {
        Some(Value::Array(list)) => Some(list.iter().map(status_to_hub).collect::<Vec<_>>()),
        _ => current.map(|n| {
            vec![json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": n}}})]
        }),
    };
    if let Some(statuses) = statuses {
        status.insert("currentMetrics".into(), statuses.into());
    }
    if let Some(conditions @ Value::Array(_)) = parsed(kept.remove(CONDITIONS)) {
        status.insert("conditions".into(), conditions);
    }
}

fn take_annotations(object: &mut Value) -> Map<String, Value> {
    let mut taken = Map::new();
    let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return taken;
    };
    let Some(annotations) = meta.get_mut("annotations").and_then(Value::as_object_mut) else {
        return taken;
    };
    for key in [METRICS, STATUSES, BEHAVIOR, CONDITIONS] {
        if let Some(value) = annotations.remove(key) {
            taken.insert(key.into(), value);
        }
    }
    if annotations.is_empty() {
        meta.remove("annotations");
    }
    taken
}

/// Version 2 as version 1.
pub(crate) fn to_v1(object: &mut Value) {
    object["apiVersion"] = "autoscaling/v1".into();
    take_annotations(object);
    let mut kept = Map::new();
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        let metrics = spec.remove("metrics").unwrap_or_default();
        let metrics = metrics.as_array().map_or(&[][..], Vec::as_slice);
        if let Some(cpu) = metrics.iter().find(|m| is_cpu(m)) {
            let target = cpu["resource"]["target"]["averageUtilization"].clone();
            spec.insert("targetCPUUtilizationPercentage".into(), target);
        }
        let others: Vec<Ordered> =
            metrics.iter().filter(|m| !is_cpu(m)).map(metric_to_v1).collect();
        if !others.is_empty() {
            kept.insert(METRICS.into(), list_text(&others).into());
        }
        if let Some(behavior) = spec.remove("behavior").filter(|b| !b.is_null()) {
            kept.insert(
                BEHAVIOR.into(),
                crate::golang::compact("autoscaling.HorizontalPodAutoscalerBehavior", &behavior)
                    .into(),
            );
        }
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        // The first version always shows it, the second one only when it is not zero.
        status.entry("currentReplicas").or_insert_with(|| 0.into());
        let metrics = status.remove("currentMetrics").unwrap_or_default();
        let metrics = metrics.as_array().map_or(&[][..], Vec::as_slice);
        let cpu =
            metrics.iter().filter(|m| m["type"] == "Resource" && m["resource"]["name"] == "cpu");
        let used =
            cpu.map(|m| &m["resource"]["current"]["averageUtilization"]).rfind(|v| !v.is_null());
        if let Some(used) = used {
            status.insert("currentCPUUtilizationPercentage".into(), used.clone());
        }
        if !metrics.is_empty() {
            let all: Vec<Ordered> = metrics.iter().map(status_to_v1).collect();
            kept.insert(STATUSES.into(), list_text(&all).into());
        }
        let conditions = status.remove("conditions").unwrap_or_default();
        let conditions = conditions.as_array().map_or(&[][..], Vec::as_slice);
        if !conditions.is_empty() {
            let all: Vec<Ordered> = conditions.iter().map(condition).collect();
            kept.insert(CONDITIONS.into(), list_text(&all).into());
        }
    }
    if kept.is_empty() {
        return;
    }
    let annotations = &mut object["metadata"]["annotations"];
    if !annotations.is_object() {
        *annotations = json!({});
    }
    if let Some(map) = annotations.as_object_mut() {
        map.extend(kept);
    }
}

/// Fields in the order of Go's declaration.
type Ordered = Vec<(&'static str, Field)>;

enum Field {
    Value(Value),
    Fields(Ordered),
}

fn text(fields: &Ordered) -> String {
    let field = |(name, field): &(&'static str, Field)| {
        let value = match field {
            Field::Value(value) => value.to_string(),
            Field::Fields(fields) => text(fields),
        };
        format!("\"{name}\":{value}")
    };
    format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(","))
}

fn list_text(list: &[Ordered]) -> String {
    format!("[{}]", list.iter().map(text).collect::<Vec<_>>().join(","))
}

/// The named values that are there.
fn pick(fields: &[(&'static str, &Value)]) -> Ordered {
    let there = fields.iter().filter(|(_, value)| !value.is_null());
    there.map(|(name, value)| (*name, Field::Value((*value).clone()))).collect()
}

fn object_ref(reference: &Value) -> Field {
    Field::Fields(pick(&[
        ("kind", &reference["kind"]),
        ("name", &reference["name"]),
        ("apiVersion", &reference["apiVersion"]),
    ]))
}

const SOURCES: [&str; 5] = ["object", "pods", "resource", "containerResource", "external"];

fn metric_to_v1(metric: &Value) -> Ordered {
    each_source(metric, |field, source| {
        let (id, target) = (&source["metric"], &source["target"]);
        let zero = Value::from("0");
        let or_zero = |v: &Value| if v.is_null() { zero.clone() } else { v.clone() };
        match field {
            "object" => {
                let mut all: Ordered = vec![("target", object_ref(&source["describedObject"]))];
                all.push(("metricName", Field::Value(id["name"].clone())));
                all.push(("targetValue", Field::Value(or_zero(&target["value"]))));
                all.extend(pick(&[
                    ("selector", &id["selector"]),
                    ("averageValue", &target["averageValue"]),
                ]));
                all
            }
            "pods" => {
                let mut all = pick(&[("metricName", &id["name"])]);
                all.push(("targetAverageValue", Field::Value(or_zero(&target["averageValue"]))));
                all.extend(pick(&[("selector", &id["selector"])]));
                all
            }
            "external" => pick(&[
                ("metricName", &id["name"]),
                ("metricSelector", &id["selector"]),
                ("targetValue", &target["value"]),
                ("targetAverageValue", &target["averageValue"]),
            ]),
            _ => {
                let mut all = pick(&[
                    ("name", &source["name"]),
                    ("targetAverageUtilization", &target["averageUtilization"]),
                    ("targetAverageValue", &target["averageValue"]),
                ]);
                all.extend(pick(&[("container", &source["container"])]));
                all
            }
        }
    })
}

fn each_source(metric: &Value, convert: impl Fn(&str, &Value) -> Ordered) -> Ordered {
    let mut all = pick(&[("type", &metric["type"])]);
    for field in SOURCES.into_iter().filter(|field| !metric[*field].is_null()) {
        all.push((field, Field::Fields(convert(field, &metric[field]))));
    }
    all
}

fn status_to_v1(metric: &Value) -> Ordered {
    each_source(metric, |field, source| {
        let (id, current) = (&source["metric"], &source["current"]);
        let zero = Value::from("0");
        let or_zero = |v: &Value| Field::Value(if v.is_null() { zero.clone() } else { v.clone() });
        match field {
            "object" => {
                let mut all: Ordered = vec![("target", object_ref(&source["describedObject"]))];
                all.extend(pick(&[("metricName", &id["name"])]));
                all.push(("currentValue", or_zero(&current["value"])));
                all.extend(pick(&[
                    ("selector", &id["selector"]),
                    ("averageValue", &current["averageValue"]),
                ]));
                all
            }
            "pods" => {
                let mut all = pick(&[("metricName", &id["name"])]);
                all.push(("currentAverageValue", or_zero(&current["averageValue"])));
                all.extend(pick(&[("selector", &id["selector"])]));
                all
            }
            "external" => {
                let mut all =
                    pick(&[("metricName", &id["name"]), ("metricSelector", &id["selector"])]);
                all.push(("currentValue", or_zero(&current["value"])));
                all.extend(pick(&[("currentAverageValue", &current["averageValue"])]));
                all
            }
            _ => {
                let mut all = pick(&[
                    ("name", &source["name"]),
                    ("currentAverageUtilization", &current["averageUtilization"]),
                ]);
                all.push(("currentAverageValue", or_zero(&current["averageValue"])));
                all.extend(pick(&[("container", &source["container"])]));
                all
            }
        }
    })
}

fn condition(condition: &Value) -> Ordered {
    let mut all = pick(&[("type", &condition["type"]), ("status", &condition["status"])]);
    all.push(("lastTransitionTime", Field::Value(condition["lastTransitionTime"].clone())));
    all.extend(pick(&[("reason", &condition["reason"]), ("message", &condition["message"])]));
    all
}

/// Drops what is unset.
fn compact(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, compact(v)));
            Value::Object(kept.collect())
        }
        other => other,
    }
}

fn metric_to_hub(metric: &Value) -> Value {
    let mut out = json!({"type": metric["type"]});
    for field in SOURCES.into_iter().filter(|field| !metric[*field].is_null()) {
        let source = &metric[field];
        let is_zero = |v: &Value| v.is_null() || v == "0" || *v == 0;
        let id =
            |selector: &str| json!({"name": source["metricName"], "selector": source[selector]});
        let (value, average) = (&source["targetValue"], &source["targetAverageValue"]);
        out[field] = compact(match field {
            "object" => {
                let averaged = !source["averageValue"].is_null();
                let value = if averaged && is_zero(value) { &Value::Null } else { value };
                let kind = if averaged { "AverageValue" } else { "Value" };
                json!({
                    "describedObject": source["target"], "metric": id("selector"),
                    "target": {"type": kind, "value": value, "averageValue": source["averageValue"]},
                })
            }
            "pods" => json!({
                "metric": id("selector"), "target": {"type": "AverageValue", "averageValue": average},
            }),
            "external" => {
                let kind = if value.is_null() { "AverageValue" } else { "Value" };
                json!({
                    "metric": id("metricSelector"),
                    "target": {"type": kind, "value": value, "averageValue": average},
                })
            }
            _ => {
                let used = &source["targetAverageUtilization"];
                let kind = if used.is_null() { "AverageValue" } else { "Utilization" };
                json!({
                    "name": source["name"], "container": source["container"],
                    "target": {"type": kind, "averageValue": average, "averageUtilization": used},
                })
            }
        });
    }
    out
}

fn status_to_hub(metric: &Value) -> Value {
    let mut out = json!({"type": metric["type"]});
    for field in SOURCES.into_iter().filter(|field| !metric[*field].is_null()) {
        let source = &metric[field];
        let id =
            |selector: &str| json!({"name": source["metricName"], "selector": source[selector]});
        out[field] = compact(match field {
            "object" => json!({
                "describedObject": source["target"], "metric": id("selector"),
                "current": {"value": source["currentValue"], "averageValue": source["averageValue"]},
            }),
            "pods" => json!({
                "metric": id("selector"), "current": {"averageValue": source["currentAverageValue"]},
            }),
            "external" => json!({
                "metric": id("metricSelector"),
                "current": {"value": source["currentValue"], "averageValue": source["currentAverageValue"]},
            }),
            _ => json!({
                "name": source["name"], "container": source["container"],
                "current": {
                    "averageValue": source["currentAverageValue"],
                    "averageUtilization": source["currentAverageUtilization"],
                },
            }),
        });
    }
    out
}

/// Behaviour is kept with the names of the internal type: these begin in upper case.
fn internal_names(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let lower = |key: &str| {
                let mut chars = key.chars();
                chars
                    .next()
                    .map(|c| c.to_ascii_lowercase().to_string() + chars.as_str())
                    .unwrap_or_default()
            };
            let fields = map.iter().filter(|(_, v)| !v.is_null());
            Value::Object(fields.map(|(k, v)| (lower(k), internal_names(v))).collect())
        }
        Value::Array(list) => list.iter().map(internal_names).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{to_hub, to_v1};

    #[test]
    fn version_one_loses_nothing() {
        let hub = json!({
            "apiVersion": "autoscaling/v2", "metadata": {"name": "h"},
            "spec": {
                "maxReplicas": 3,
                "metrics": [
                    {"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "1"}}},
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
                ],
                "behavior": {"scaleDown": {"selectPolicy": "Min", "policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}]}},
            },
            "status": {"currentReplicas": 1},
        });
        let mut object = hub.clone();
        to_v1(&mut object);
        assert_eq!(object["spec"]["targetCPUUtilizationPercentage"], 50);
        assert_eq!(
            object["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"],
            r#"[{"type":"Pods","pods":{"metricName":"m","targetAverageValue":"1"}}]"#
        );
        to_hub(&mut object);
        assert_eq!(object, hub);
    }
}
