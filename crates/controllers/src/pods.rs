//! What controllers ask of a pod: is it active, ready, available; the pod a template makes.

use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};

use crate::meta::seconds_between;

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("")
}

/// Ended, whether well or not.
pub(crate) fn finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Neither ended nor asked to.
pub(crate) fn active(pod: &Pod) -> bool {
    !finished(pod) && pod.metadata.deletion_timestamp.is_none()
}

pub(crate) fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or("")
}

fn ready_condition(pod: &Pod) -> Option<&PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == "Ready" && c.status == "True")
}

pub(crate) fn ready(pod: &Pod) -> bool {
    ready_condition(pod).is_some()
}

/// Since when it is ready.
pub(crate) fn ready_since(pod: &Pod) -> Option<&Time> {
    ready_condition(pod)?.last_transition_time.as_ref()
}

/// Seconds until a ready pod counts as available: 0 or less when it does, `None` when not ready.
pub(crate) fn available_in(pod: &Pod, min_ready: i32, now: &Time) -> Option<i64> {
    let since = ready_condition(pod)?.last_transition_time.as_ref();
    match (min_ready, since) {
        (0, _) => Some(0),
        (_, None) => Some(i64::from(min_ready)),
        (_, Some(since)) => Some(i64::from(min_ready) - seconds_between(since, now)),
    }
}

/// The pod that `template` makes; its name comes from `prefix`.
pub(crate) fn from_template(
    template: &PodTemplateSpec,
    namespace: &str,
    prefix: &str,
    owner: OwnerReference,
) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{prefix}-")),
            namespace: Some(namespace.to_owned()),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}
