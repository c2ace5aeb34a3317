//! Horizontal pod autoscalers, as version 2 has them.

mod convert;
mod metrics;

use api::names;
use serde_json::{Value, json};

use crate::check::At;
use crate::shared::quantity::parse;
use crate::value::set_default;
use crate::{Kind, PLAIN};

pub(crate) use convert::{to_hub, to_v1};

pub(crate) static KIND: Kind = Kind {
    default,
    create: |hpa| spec(&hpa.get("spec")),
    update: |hpa| spec(&hpa.get("spec")),
    status: |hpa| {
        let status = hpa.get("status");
        status.get("currentReplicas").non_negative();
        status.get("desiredReplicas").non_negative();
    },
    ..PLAIN
};

/// Per cent of cpu that an autoscaler without metrics keeps.
pub(super) const UTILIZATION: i64 = 80;

pub(super) fn cpu_metric(utilization: i64) -> Value {
    json!({"type": "Resource", "resource": {
        "name": "cpu", "target": {"type": "Utilization", "averageUtilization": utilization},
    }})
}

fn default(object: &mut Value) {
    if object["apiVersion"] == "autoscaling/v1" {
        to_hub(object);
        default(object);
        return to_v1(object);
    }
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
    if spec.get("metrics").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        spec["metrics"] = json!([cpu_metric(UTILIZATION)]);
    }
    let Some(behavior) = spec.get_mut("behavior").filter(|b| b.is_object()) else { return };
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
    let up = json!([pods, percent]);
    default_rules(behavior, "scaleUp", Some(0), &up);
    default_rules(behavior, "scaleDown", None, &json!([percent]));
}

fn default_rules(behavior: &mut Value, way: &str, window: Option<i64>, policies: &Value) {
    set_default(behavior, way, json!({}));
    let rules = &mut behavior[way];
    if let Some(window) = window {
        set_default(rules, "stabilizationWindowSeconds", window);
    }
    set_default(rules, "selectPolicy", "Max");
    set_default(rules, "policies", policies.clone());
}

fn spec(spec: &At<'_>) {
    let (min, max) = (spec.get("minReplicas"), spec.get("maxReplicas"));
    if min.int().is_some_and(|n| n < 1) {
        min.invalid("must be greater than or equal to 1");
    }
    match max.number() {
        0 => max.required("must be set and greater than 0"),
        n if n < 0 => max.invalid("must be greater than or equal to 1"),
        _ => {}
    }
    if min.int().is_some_and(|n| max.number() < n) {
        max.invalid_number("must be greater than or equal to `minReplicas`");
    }
    reference(&spec.get("scaleTargetRef"), true);
    let list = spec.get("metrics");
    list.items().for_each(|metric| metrics::metric(&metric));
    let scales_on = |m: &At<'_>| matches!(m.get("type").text(), "Object" | "External");
    if min.int() == Some(0) && !list.items().any(|m| scales_on(&m)) {
        list.forbidden(
            "must specify at least one Object or External metric to support scaling to zero replicas",
        );
    }
    let behavior = spec.get("behavior");
    for way in ["scaleUp", "scaleDown"] {
        let at = behavior.get(way);
        if !at.is_absent() {
            rules(&at);
        }
    }
}

/// A reference to an object whose version matters less than its kind.
fn reference(at: &At<'_>, with_group: bool) {
    for field in ["kind", "name"] {
        if at.get(field).need() {
            at.get(field).named(names::path_segment);
        }
    }
    let version = at.get("apiVersion");
    let text = version.text();
    if text.matches('/').count() > 1 {
        version.invalid_text(&format!("unexpected GroupVersion string: {text}"));
    } else if with_group && (!text.contains('/') || text.starts_with('/')) {
        version.invalid_text("apiVersion must specify API group");
    }
}

fn rules(rules: &At<'_>) {
    let window = rules.get("stabilizationWindowSeconds");
    match window.number() {
        n if n < 0 => window.invalid("must be greater than or equal to zero"),
        n if n > 3600 => window.invalid("must be less than or equal to 3600"),
        _ => {}
    }
    rules.get("selectPolicy").one_of_if_set(&["Disabled", "Max", "Min"]);
    let policies = rules.get("policies");
    if policies.is_empty() {
        policies.required("must specify at least one Policy");
    }
    for policy in policies.items() {
        policy.get("type").one_of(&["Percent", "Pods"]);
        let (value, period) = (policy.get("value"), policy.get("periodSeconds"));
        for at in [&value, &period] {
            if at.number() <= 0 {
                at.invalid_number("must be greater than zero");
            }
        }
        if period.number() > 1800 {
            period.invalid("must be less than or equal to 1800");
        }
    }
    let tolerance = rules.get("tolerance");
    if let Some(amount) = parse(tolerance.value()).filter(|q| q.is_negative()) {
        let detail = "must be greater than or equal to 0";
        tolerance.invalid_as(&amount.to_string().into(), detail);
    }
}
