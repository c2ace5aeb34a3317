//! ReplicaSets, ReplicationControllers, and bare pod templates.

use api::names;
use serde_json::{Value, json};

use super::{counts, replicated, selector, within_replicas};
use crate::check::At;
use crate::core::pod;
use crate::{Kind, PLAIN};

pub(crate) static REPLICA_SET: Kind = Kind {
    default: |object| pod::default_template(&mut object["spec"]["template"]),
    create: |set| replica_set(&set.get("spec")),
    update: |set| {
        let spec = set.get("spec");
        replica_set(&spec);
        spec.get("selector").immutable();
    },
    status: |set| status(&set.get("status")),
    ..PLAIN
};
pub(crate) static CONTROLLER: Kind = Kind {
    name: names::long_name,
    default: default_controller,
    create: |c| controller(&c.get("spec")),
    update: |c| controller(&c.get("spec")),
    status: |c| status(&c.get("status")),
    ..PLAIN
};
pub(crate) static TEMPLATE: Kind = Kind {
    default: |object| pod::default_template(&mut object["template"]),
    create: |t| pod::template(&t.get("template")),
    update: |t| pod::template(&t.get("template")),
    ..PLAIN
};

fn replica_set(spec: &At<'_>) {
    spec.get("replicas").non_negative();
    spec.get("minReadySeconds").non_negative();
    selector(&spec.get("selector"), "deployment");
    replicated(spec);
}

/// A controller without selector or labels has its template's labels as both.
fn default_controller(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
    if spec.get("template").is_some_and(Value::is_object) {
        pod::default_template(&mut spec["template"]);
    }
    let labels = spec.pointer("/template/metadata/labels").cloned().unwrap_or_default();
    if labels.is_null() {
        return;
    }
    let empty = |v: Option<&Value>| v.and_then(Value::as_object).is_none_or(|m| m.is_empty());
    if empty(spec.get("selector")) {
        spec["selector"] = labels.clone();
    }
    if empty(object.pointer("/metadata/labels")) {
        if !object["metadata"].is_object() {
            object["metadata"] = json!({});
        }
        object["metadata"]["labels"] = labels;
    }
}

fn controller(spec: &At<'_>) {
    let (at, template) = (spec.get("selector"), spec.get("template"));
    spec.get("minReadySeconds").non_negative();
    at.need();
    spec.get("replicas").need_present();
    spec.get("replicas").non_negative();
    if template.is_absent() {
        template.required("");
    } else {
        let meta = template.get("metadata");
        let labels = meta.get("labels");
        let mut pairs = at.value().as_object().into_iter().flatten();
        if pairs.any(|(key, value)| labels.value().get(key) != Some(value)) {
            labels.invalid("`selector` does not match template `labels`");
        }
        pod::template(&template);
        super::runs_always(&template, "ReplicationController");
    }
}

fn status(status: &At<'_>) {
    counts(
        status,
        &[
            "replicas",
            "fullyLabeledReplicas",
            "readyReplicas",
            "availableReplicas",
            "observedGeneration",
            "terminatingReplicas",
        ],
    );
    let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
    within_replicas(status, &parts, "readyReplicas");
}
