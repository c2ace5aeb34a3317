//! Workloads: defaults of the pod template, strategies, and selectors that must match and stay.

use api::selector::LabelSelector;
use serde_json::{Value, json};

use crate::check::At;
use crate::core::pod;
use crate::value::{items_mut, set_default, text};
use crate::{Kind, PLAIN};

pub(crate) static DEPLOYMENT: Kind =
    Kind { default: default_deployment, create: validate, update: validate, ..PLAIN };
pub(crate) static TEMPLATED: Kind =
    Kind { default: default_templated, create: validate, update: validate, ..PLAIN };

fn default_deployment(object: &mut Value) {
    default_templated(object);
    let strategy = &mut object["spec"]["strategy"];
    if strategy["type"] == "RollingUpdate" {
        default_rolling(strategy, &[("maxUnavailable", "25%".into()), ("maxSurge", "25%".into())]);
    }
}

fn default_rolling(strategy: &mut Value, values: &[(&str, Value)]) {
    set_default(strategy, "rollingUpdate", json!({}));
    for (key, value) in values {
        set_default(&mut strategy["rollingUpdate"], key, value.clone());
    }
}

fn default_templated(object: &mut Value) {
    let kind = object["kind"].as_str().unwrap_or("").to_owned();
    // A path that is absent must stay so: indexing mutably would create it.
    let template = match kind.as_str() {
        "CronJob" => "/spec/jobTemplate/spec/template/spec",
        "PodTemplate" => "/template/spec",
        _ => "/spec/template/spec",
    };
    if let Some(spec) = object.pointer_mut(template) {
        pod::default_spec(spec);
    }
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
    match kind.as_str() {
        "DaemonSet" if spec["updateStrategy"]["type"] == "RollingUpdate" => {
            let values = [("maxUnavailable", 1.into()), ("maxSurge", 0.into())];
            default_rolling(&mut spec["updateStrategy"], &values);
        }
        "StatefulSet" => default_stateful(spec),
        "ReplicationController" if spec["selector"].is_null() => {
            let labels = spec["template"]["metadata"]["labels"].clone();
            if !labels.is_null() {
                spec["selector"] = labels;
            }
        }
        "Job" => default_job(object),
        _ => {}
    }
}

fn default_stateful(spec: &mut Value) {
    if spec["updateStrategy"]["type"] == "RollingUpdate" {
        default_rolling(&mut spec["updateStrategy"], &[("partition", 0.into())]);
    }
    set_default(spec, "persistentVolumeClaimRetentionPolicy", json!({}));
    for when in ["whenDeleted", "whenScaled"] {
        set_default(&mut spec["persistentVolumeClaimRetentionPolicy"], when, "Retain");
    }
    for claim in items_mut(spec, "volumeClaimTemplates") {
        set_default(&mut claim["status"], "phase", "Pending");
    }
}

/// A job without a selector of its own selects its own pods (batch `generateSelector`).
fn default_job(object: &mut Value) {
    let (uid, name) =
        (text(&object["metadata"]["uid"]).to_owned(), text(&object["metadata"]["name"]).to_owned());
    let spec = &mut object["spec"];
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        spec["completions"] = 1.into();
    }
    set_default(spec, "parallelism", 1);
    if spec["manualSelector"] == true || uid.is_empty() || !spec["selector"].is_null() {
        return;
    }
    spec["selector"] = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
    let template = &mut spec["template"]["metadata"];
    set_default(template, "labels", json!({}));
    for (key, value) in [
        ("batch.kubernetes.io/controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
        ("controller-uid", &uid),
        ("job-name", &name),
    ] {
        set_default(&mut template["labels"], key, value.as_str());
    }
}

/// The selector is there, selects the template's labels, and never changes.
fn validate(object: &At<'_>) {
    let kind = object.get("kind");
    if !matches!(kind.text(), "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet") {
        return;
    }
    let spec = object.get("spec");
    let at = spec.get("selector");
    let selector = LabelSelector::from_json(at.value());
    if at.is_absent() {
        at.required("");
    } else if selector.is_empty() {
        at.invalid(&format!("empty selector is invalid for {}", kind.text().to_lowercase()));
    }
    let labels = &spec.value()["template"]["metadata"]["labels"];
    if !selector.is_empty() && !selector.matches_with(|key| labels[key].as_str()) {
        let shown = if labels.is_null() { json!({}) } else { labels.clone() };
        let template = spec.get("template");
        let meta = template.get("metadata");
        meta.get("labels").invalid_as(&shown, "`selector` does not match template `labels`");
    }
    at.immutable();
    pod::spec(&spec.get("template").get("spec").as_new());
    spec.get("replicas").non_negative();
}
