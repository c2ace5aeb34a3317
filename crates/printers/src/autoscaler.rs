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
    let target = &metric[source]["target"];
    let current = status.get(source).map(|at| &at["current"]);
    let named = matches!(source, "external" | "object");
    // Upstream prints what an existing status leaves out as a nil quantity.
    let now = |field: &str| match current {
        Some(current) => amount(current, field).unwrap_or_else(|| "<nil>".into()),
        None => "<unknown>".into(),
    };
    let per_cent = |from: &Value| Some(format!("{}%", from["averageUtilization"].as_i64()?));
    let text_of = match amount(target, "averageValue") {
        Some(average) if named => {
            let now = current.and_then(|current| amount(current, "averageValue"));
            format!("{}/{average} (avg)", now.unwrap_or_else(|| "<unknown>".into()))
        }
        Some(average) => format!("{}/{average}", now("averageValue")),
        None if named => {
            let wanted = amount(target, "value").unwrap_or_else(|| "<nil>".into());
            format!("{}/{wanted}", now("value"))
        }
        None if source == "pods" => format!("{}/<nil>", now("averageValue")),
        None => {
            let wanted = per_cent(target).unwrap_or_else(|| "<auto>".into());
            let now = current.and_then(per_cent).unwrap_or_else(|| "<unknown>".into());
            format!("{now}/{wanted}")
        }
    };
    match metric[source]["name"].as_str() {
        Some(resource) => format!("{resource}: {text_of}"),
        None => text_of,
    }
}

fn amount(from: &Value, field: &str) -> Option<String> {
    match &from[field] {
        Value::String(text) => Some(text.clone()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn metrics_are_shown_beside_their_targets() {
        let both = |metric: Value, status: Value| shown(&metric, &status);
        let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}});
        assert_eq!(both(cpu.clone(), Value::Null), "cpu: <unknown>/80%");
        let now = json!({"resource": {"current": {"averageUtilization": 7}}});
        assert_eq!(both(cpu, now), "cpu: 7%/80%");
        let average = json!({"type": "Object", "object": {"target": {"averageValue": "5"}}});
        assert_eq!(both(average, json!({"object": {"current": {}}})), "<unknown>/5 (avg)");
        let pods = json!({"type": "Pods", "pods": {"target": {"averageValue": "5"}}});
        assert_eq!(both(pods.clone(), json!({"pods": {"current": {}}})), "<nil>/5");
        assert_eq!(both(pods, Value::Null), "<unknown>/5");
    }
}
