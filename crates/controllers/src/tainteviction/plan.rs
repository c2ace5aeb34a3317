//! How long a pod may stay on a node with taints that evict.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Taint, Toleration};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stay {
    Forever,
    /// From when the taints were first seen.
    For(Duration),
}

/// The least that the pod's tolerations allow for all evicting taints together.
pub(crate) fn stay(pod: &Pod, taints: &[Taint]) -> Stay {
    let tolerations = pod.spec.iter().flat_map(|s| s.tolerations.iter().flatten());
    let tolerations: Vec<&Toleration> = tolerations.collect();
    let mut least = Stay::Forever;
    for taint in taints.iter().filter(|t| t.effect == "NoExecute") {
        let matching: Vec<&&Toleration> =
            tolerations.iter().filter(|t| tolerates(t, taint)).collect();
        if matching.is_empty() {
            return Stay::For(Duration::ZERO);
        }
        for seconds in matching.iter().filter_map(|t| t.toleration_seconds) {
            let limit = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            least = match least {
                Stay::For(known) => Stay::For(known.min(limit)),
                Stay::Forever => Stay::For(limit),
            };
        }
    }
    least
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("") {
        "" | "Equal" => text(&toleration.value) == text(&taint.value),
        operator => operator == "Exists",
    }
}
