//! What an autoscaler looks at.

use api::names;

use super::reference;
use crate::check::At;
use crate::shared::quantity::{container_resource_name, parse};

const TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
/// Fields in the order in which the first one there is looked at.
const FIELDS: [(&str, &str); 5] = [
    ("object", "Object"),
    ("external", "External"),
    ("pods", "Pods"),
    ("resource", "Resource"),
    ("containerResource", "ContainerResource"),
];

pub(super) fn metric(metric: &At<'_>) {
    let kind = metric.get("type");
    if kind.is_empty() {
        kind.required("must specify a metric source type");
    }
    kind.one_of(&TYPES);
    let mut present = FIELDS.iter().filter(|(field, _)| !metric.get(field).is_absent());
    if let Some((field, _)) = present.next() {
        source(&metric.get(field), field);
    }
    let expected = FIELDS.iter().find(|(_, name)| *name == kind.text());
    match expected {
        Some((field, _)) if metric.get(field).is_absent() => {
            metric.get(field).required("must populate information for the given metric source");
        }
        Some(_) => {}
        None => drop(kind.one_of(&TYPES)),
    }
    let present: Vec<&str> =
        FIELDS.iter().map(|(field, _)| *field).filter(|f| !metric.get(f).is_absent()).collect();
    if present.len() != 1 {
        for field in present.into_iter().filter(|f| expected.is_none_or(|(e, _)| e != f)) {
            metric.get(field).forbidden("must populate the given metric source only");
        }
    }
}

fn source(at: &At<'_>, field: &str) {
    let target = at.get("target");
    let (value, average, utilization) =
        (target.get("value"), target.get("averageValue"), target.get("averageUtilization"));
    match field {
        "object" => {
            reference(&at.get("describedObject"), false);
            identifier(&at.get("metric"));
            self::target(&target);
            if value.is_absent() && average.is_absent() {
                average.required("must set either a target value or averageValue");
            }
        }
        "external" => {
            identifier(&at.get("metric"));
            self::target(&target);
            if value.is_absent() && average.is_absent() {
                average.required("must set either a target value for metric or a per-pod target");
            }
            if !value.is_absent() && !average.is_absent() {
                value.forbidden("may not set both a target value for metric and a per-pod target");
            }
        }
        "pods" => {
            identifier(&at.get("metric"));
            self::target(&target);
            if average.is_absent() {
                average.required("must specify a positive target averageValue");
            }
        }
        _ => resource(at, field == "containerResource", &utilization, &average),
    }
}

fn resource(at: &At<'_>, of_container: bool, utilization: &At<'_>, average: &At<'_>) {
    let (name, container) = (at.get("name"), at.get("container"));
    if name.is_empty() {
        name.required("must specify a resource name");
    } else if of_container {
        container_resource_name(&name, name.text());
    }
    if of_container && container.is_empty() {
        container.required("must specify a container");
    } else if of_container {
        container.named(names::dns_label);
    }
    target(&at.get("target"));
    match (utilization.is_absent(), average.is_absent()) {
        (true, true) => {
            utilization.required("must set either a target raw value or a target utilization");
        }
        (false, false) => {
            average.forbidden("may not set both a target raw value and a target utilization");
        }
        _ => {}
    }
}

fn target(target: &At<'_>) {
    let kind = target.get("type");
    if kind.is_empty() {
        kind.required("must specify a metric target type");
    }
    if !matches!(kind.text(), "Utilization" | "Value" | "AverageValue") {
        kind.invalid_text("must be either Utilization, Value, or AverageValue");
    }
    for field in ["value", "averageValue"] {
        let at = target.get(field);
        if parse(at.value()).is_some_and(|q| q.is_zero() || q.is_negative()) {
            at.invalid("must be positive");
        }
    }
    let utilization = target.get("averageUtilization");
    if utilization.int().is_some_and(|n| n < 1) {
        utilization.invalid("must be greater than 0");
    }
}

fn identifier(metric: &At<'_>) {
    let name = metric.get("name");
    if name.is_empty() {
        name.required("must specify a metric name");
    } else {
        name.named(names::path_segment);
    }
}
