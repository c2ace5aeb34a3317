//! Workloads that keep pods running: selectors, templates, strategies.

mod daemon;
mod deployment;
mod replica;
mod revision;
mod stateful;

use serde_json::Value;

use crate::check::At;
use crate::core::pod;
use crate::shared::{LabelRules, label_selector, selector_matches};

pub(crate) use daemon::KIND as DAEMON_SET;
pub use daemon::count_template;
pub(crate) use deployment::KIND as DEPLOYMENT;
pub(crate) use replica::{CONTROLLER, REPLICA_SET, TEMPLATE};
pub(crate) use revision::KIND as REVISION;
pub(crate) use stateful::KIND as STATEFUL_SET;

/// A selector that must be there and select something; `whose` is upstream's word for it.
fn selector(at: &At<'_>, whose: &str) {
    if at.is_absent() {
        return at.required("");
    }
    label_selector(at, LabelRules::default());
    if is_empty(at.value()) {
        at.invalid(&format!("empty selector is invalid for {whose}"));
    }
}

fn is_empty(selector: &Value) -> bool {
    let labels = selector["matchLabels"].as_object().is_none_or(|m| m.is_empty());
    labels && selector["matchExpressions"].as_array().is_none_or(|l| l.is_empty())
}

/// The template's labels must be selected. False when the selector cannot be read.
fn selects_template(selector: &At<'_>, template: &At<'_>) -> bool {
    let meta = template.get("metadata");
    let labels = meta.get("labels");
    let value = selector.value();
    let selected = match value {
        Value::Null => Some(false),
        _ if is_empty(value) => Some(true),
        _ => selector_matches(value, labels.value()),
    };
    if selected == Some(false) {
        labels.invalid("`selector` does not match template `labels`");
    }
    selected.is_some()
}

/// Pods of these workloads are restarted for ever.
fn runs_always(template: &At<'_>, kind: &str) {
    let spec = template.get("spec");
    let policy = spec.get("restartPolicy");
    if policy.text() != "Always" {
        policy.not_supported(&["Always"]);
    }
    let deadline = spec.get("activeDeadlineSeconds");
    if !deadline.is_absent() {
        deadline.forbidden(&format!("activeDeadlineSeconds in {kind} is not Supported"));
    }
}

/// Template of a ReplicaSet or Deployment.
fn replicated(spec: &At<'_>) {
    let (at, template) = (spec.get("selector"), spec.get("template"));
    if !selects_template(&at, &template) {
        return at.invalid("invalid label selector");
    }
    pod::template(&template);
    runs_always(&template, "ReplicaSet");
}

fn counts(status: &At<'_>, fields: &[&str]) {
    fields.iter().for_each(|field| status.get(field).non_negative());
}

/// No more than all there are.
fn within_replicas(status: &At<'_>, fields: &[&str], ready: &str) {
    let all = status.get("replicas").number();
    for field in fields.iter().filter(|f| status.get(f).number() > all) {
        status.get(field).invalid("cannot be greater than status.replicas");
    }
    let available = status.get("availableReplicas");
    if available.number() > status.get("readyReplicas").number() {
        available.invalid(&format!("cannot be greater than {ready}"));
    }
}

/// A count that only grows.
fn not_decremented(at: &At<'_>) {
    let Some(before) = at.old().and_then(Value::as_i64) else { return };
    if at.int().is_none_or(|now| now < before) {
        at.invalid_number("cannot be decremented");
    }
}
