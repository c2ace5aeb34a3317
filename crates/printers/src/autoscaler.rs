//! Columns of horizontal pod autoscalers.

use serde_json::Value;

use super::{age, name, number};
use validation::convert::autoscaler_v2;
use validation::{items, text};

/// Metrics shown; the rest is counted.
const SHOWN: usize = 2;

pub(super) fn cells(autoscaler: &Value) -> Vec<Value> {
    let object = autoscaler_v2(autoscaler);
    let (spec, status) = (&object["spec"], &object["status"]);
    let target = &spec["scaleTargetRef"];
    vec![
        name(autoscaler),
        format!("{}/{}", text(&target["kind"]), text(&target["name"])).into(),
        metrics(spec, status).into(),
        spec["minReplicas"].as_i64().map_or("<unset>".into(), |n| n.to_string()).into(),
        number(&spec["maxReplicas"]).into(),
        number(&status["currentReplicas"]).into(),
        age(autoscaler),
    ]
}

fn metrics(spec: &Value, status: &Value) -> String {
    let now: Vec<&Value> = items(status, "currentMetrics").collect();
    let all: Vec<String> = items(spec, "metrics")
        .enumerate()
        .map(|(at, metric)| shown(metric, now.get(at).copied().unwrap_or(&Value::Null)))
        .collect();
    match all.len() {
        0 => "<none>".into(),
        n if n > SHOWN => format!("{} + {} more...", all[..SHOWN].join(", "), n - SHOWN),
        _ => all.join(", "),
    }
}

fn shown(metric: &Value, status: &Value) -> String {
    let source = match text(&metric["type"]) {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".into(),
    };
    let (target, current) = (&metric[source]["target"], &status[source]["current"]);
    let amount = |from: &Value, field: &str| match &from[field] {
        Value::String(text) => Some(text.clone()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    };
    let per_cent = |from: &Value| Some(format!("{}%", from["averageUtilization"].as_i64()?));
    let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "<unknown>".into());
    let average = amount(target, "averageValue");
    let text_of = match average {
        Some(average) => {
            let now = or_unknown(amount(current, "averageValue"));
            let mark = if matches!(source, "external" | "object") { " (avg)" } else { "" };
            format!("{now}/{average}{mark}")
        }
        None if matches!(source, "external" | "object") => {
            let wanted = amount(target, "value").unwrap_or_default();
            format!("{}/{wanted}", or_unknown(amount(current, "value")))
        }
        None => {
            let wanted = per_cent(target).unwrap_or_else(|| "<auto>".into());
            format!("{}/{wanted}", or_unknown(per_cent(current)))
        }
    };
    match metric[source]["name"].as_str() {
        Some(resource) => format!("{resource}: {text_of}"),
        None => text_of,
    }
}
