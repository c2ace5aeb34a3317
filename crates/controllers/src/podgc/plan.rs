//! Which pods are garbage, and what their status says at the end.

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::pods;

const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Keep,
    /// Its node does not exist.
    Orphaned,
    /// Ending, and never had a node.
    Unscheduled,
    /// Ending, on a node that an operator declared out of service.
    OutOfService,
    /// Ended, and there are too many of those.
    Surplus,
}

pub(crate) fn out_of_service(node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    taints.into_iter().any(|t| t.key == OUT_OF_SERVICE)
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

pub(crate) fn verdict(pod: &Pod, node: Option<&Node>, too_many: bool) -> Verdict {
    let ending = pod.metadata.deletion_timestamp.is_some();
    match node {
        None if pods::node(pod).is_empty() && ending => Verdict::Unscheduled,
        None if !pods::node(pod).is_empty() => Verdict::Orphaned,
        Some(node) if ending && out_of_service(node) && !is_ready(node) => Verdict::OutOfService,
        _ if too_many && pods::finished(pod) => Verdict::Surplus,
        _ => Verdict::Keep,
    }
}

/// The status of a pod that did not end by itself.
pub(crate) fn last_words(pod: &Pod, verdict: &Verdict, now: &Time) -> Option<Value> {
    if pods::finished(pod) {
        return None;
    }
    let mut status = json!({"phase": "Failed"});
    if *verdict == Verdict::Orphaned {
        status["conditions"] = json!([{
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByPodGC",
            "message": "PodGC: node no longer exists",
            "lastTransitionTime": now,
        }]);
    }
    Some(status)
}
