//! Taints of devices.

use k8s_openapi::api::resource::v1::{DeviceTaint, DeviceToleration};

/// Whether the toleration is for this taint. Effects that nobody knows are the caller's affair.
pub fn tolerates(toleration: &DeviceToleration, taint: &DeviceTaint) -> bool {
    let text = |of: &Option<String>| of.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("") {
        "" | "Equal" => text(&toleration.value) == text(&taint.value),
        "Exists" => true,
        _ => false,
    }
}

/// Whether one of the taints keeps a request with these tolerations from the device. Effects other than
/// these two do not.
pub(crate) fn keeps_away(taints: &[DeviceTaint], tolerations: &[DeviceToleration]) -> bool {
    let mut effective =
        taints.iter().filter(|t| matches!(t.effect.as_str(), "NoSchedule" | "NoExecute"));
    effective.any(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}
