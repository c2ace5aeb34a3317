//! Taints that would end the pod at once, and what tolerates a taint.

use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};

use crate::spec::spec_of;

pub(super) const NAME: &str = "TaintToleration";
pub(super) const WHY: &str = "node(s) had taints that the pod didn't tolerate";

pub(super) fn are_tolerated(pod: &Pod, node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    let mut harmful = taints.iter().filter(|t| t.effect == "NoExecute");
    harmful.all(|taint| is_tolerated(pod, taint))
}

pub(super) fn is_tolerated(pod: &Pod, taint: &Taint) -> bool {
    spec_of(pod).tolerations.iter().flatten().any(|t| tolerates(t, taint))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let set = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    if set(&toleration.effect).is_some_and(|e| e != taint.effect) {
        return false;
    }
    if set(&toleration.key).is_some_and(|k| k != taint.key) {
        return false;
    }
    let own = toleration.value.as_deref().unwrap_or("");
    let value = taint.value.as_deref().unwrap_or("");
    let numbers = || Some((value.parse::<i64>().ok()?, own.parse::<i64>().ok()?));
    match toleration.operator.as_deref() {
        None | Some("" | "Equal") => own == value,
        Some("Exists") => true,
        Some("Lt") => numbers().is_some_and(|(taint, own)| taint < own),
        Some("Gt") => numbers().is_some_and(|(taint, own)| taint > own),
        Some(_) => false,
    }
}
