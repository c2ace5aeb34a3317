//! What of a claim's status changes with each step of a growth. Pure.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::{Value, json};

use crate::claims::amount;

pub(super) const CONTROLLER_IN_PROGRESS: &str = "ControllerResizeInProgress";
pub(super) const CONTROLLER_INFEASIBLE: &str = "ControllerResizeInfeasible";
pub(super) const NODE_PENDING: &str = "NodeResizePending";
pub(super) const NODE_IN_PROGRESS: &str = "NodeResizeInProgress";
pub(super) const NODE_INFEASIBLE: &str = "NodeResizeInfeasible";

const PENDING: &str =
    "Waiting for user to (re-)start a pod to finish file system resize of volume on node.";

pub(super) fn resize_status(claim: &PersistentVolumeClaim) -> Option<&str> {
    let all = claim.status.as_ref()?.allocated_resource_statuses.as_ref()?;
    all.get("storage").map(String::as_str)
}

/// The claim's conditions without those of a growth, and with these.
fn conditions(claim: &PersistentVolumeClaim, with: &[Value]) -> Value {
    const OWN: [&str; 4] =
        ["Resizing", "FileSystemResizePending", "ControllerResizeError", "NodeResizeError"];
    let status = claim.status.as_ref();
    let others = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let others = others.filter(|condition| !OWN.contains(&condition.type_.as_str()));
    let others = others.map(|condition| serde_json::to_value(condition).unwrap_or_default());
    others.chain(with.iter().cloned()).collect::<Vec<_>>().into()
}

fn condition(kind: &str, message: Option<&str>) -> Value {
    let now = jiff::Timestamp::now();
    let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now);
    json!({"type": kind, "status": "True", "lastTransitionTime": now, "message": message})
}

pub(super) fn started(claim: &PersistentVolumeClaim, size: i64) -> Value {
    json!({
        "allocatedResources": {"storage": amount(size)},
        "allocatedResourceStatuses": {"storage": CONTROLLER_IN_PROGRESS},
        "conditions": conditions(claim, &[condition("Resizing", None)]),
    })
}

pub(super) fn infeasible(claim: &PersistentVolumeClaim) -> Value {
    json!({
        "allocatedResourceStatuses": {"storage": CONTROLLER_INFEASIBLE},
        "conditions": conditions(claim, &[condition("Resizing", None)]),
    })
}

pub(super) fn node_pending(claim: &PersistentVolumeClaim) -> Value {
    let pending = condition("FileSystemResizePending", Some(PENDING));
    json!({
        "allocatedResourceStatuses": {"storage": NODE_PENDING},
        "conditions": conditions(claim, &[pending]),
    })
}

pub(super) fn finished(claim: &PersistentVolumeClaim, bytes: i64) -> Value {
    json!({
        "capacity": {"storage": amount(bytes)},
        "allocatedResources": null,
        "allocatedResourceStatuses": null,
        "conditions": conditions(claim, &[]),
    })
}
