//! Workloads: defaults of the pod template, strategies, and selectors that must match and stay.

use api::selector::LabelSelector;
use api::status::Cause;
use serde_json::{Value, json};

use super::{DEFAULT, Hooks, immutable, items_mut, pod, set_default};
use crate::meta;

pub(super) static DEPLOYMENT: Hooks =
    Hooks { default: default_deployment, validate: validate_selector, ..DEFAULT };
pub(super) static TEMPLATED: Hooks =
    Hooks { default: default_templated, validate: validate_selector, ..DEFAULT };
pub(super) static RBAC: Hooks = Hooks { default: default_rbac, create_on_update: true, ..DEFAULT };
pub(super) static SECRET: Hooks = Hooks { default: default_secret, ..DEFAULT };

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
    let (uid, name) = (meta::text(object, "uid").to_owned(), meta::text(object, "name").to_owned());
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
fn validate_selector(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let kind = object["kind"].as_str().unwrap_or("");
    if !matches!(kind, "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet") {
        return causes;
    }
    let spec = &object["spec"];
    let selector = LabelSelector::from_json(&spec["selector"]);
    if spec["selector"].is_null() {
        causes.push(meta::required("spec.selector", ""));
    } else if selector.is_empty() {
        let detail = format!("empty selector is invalid for {}", kind.to_lowercase());
        causes.push(meta::invalid("spec.selector", &spec["selector"], &detail));
    }
    let labels = &spec["template"]["metadata"]["labels"];
    if !selector.is_empty() && !selector.matches_with(|key| labels[key].as_str()) {
        let shown = if labels.is_null() { json!({}) } else { labels.clone() };
        let detail = "`selector` does not match template `labels`";
        causes.push(meta::invalid("spec.template.metadata.labels", &shown, detail));
    }
    if old.is_some_and(|old| old["spec"]["selector"] != spec["selector"]) {
        causes.push(immutable("spec.selector", &spec["selector"]));
    }
    causes.extend(pod::validate_spec(&spec["template"]["spec"], "spec.template.spec"));
    if spec["replicas"].as_i64().is_some_and(|n| n < 0) {
        let detail = "must be greater than or equal to 0";
        causes.push(meta::invalid("spec.replicas", &spec["replicas"], detail));
    }
    causes
}

/// Subjects name their API group.
fn default_rbac(object: &mut Value) {
    for subject in items_mut(object, "subjects") {
        if matches!(subject["kind"].as_str(), Some("User" | "Group")) {
            set_default(subject, "apiGroup", "rbac.authorization.k8s.io");
        }
    }
    if object["roleRef"].is_object() {
        set_default(&mut object["roleRef"], "apiGroup", "rbac.authorization.k8s.io");
    }
}

/// `stringData` is written into `data` and not kept.
fn default_secret(object: &mut Value) {
    use base64::Engine as _;
    let Some(map) = object.as_object_mut() else { return };
    let Some(Value::Object(plain)) = map.remove("stringData") else { return };
    let data = map.entry("data").or_insert_with(|| json!({}));
    for (key, text) in plain {
        let bytes = text.as_str().unwrap_or("").as_bytes();
        data[key] = base64::engine::general_purpose::STANDARD.encode(bytes).into();
    }
}
