//! What this node cannot do for a pod.

use k8s_openapi::api::core::v1::Pod;

use super::Refusal;
use crate::spec::{is_host_network, spec_of};

const OS: &str = "linux";
const UNSUPPORTED: &str = "PodFeatureUnsupported";

pub(super) fn check_os(pod: &Pod) -> Result<(), Refusal> {
    let label = pod.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/os"));
    if label.is_some_and(|os| os != OS) {
        return Err(Refusal::new(
            "PodOSSelectorNodeLabelDoesNotMatch",
            "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
        ));
    }
    match spec_of(pod).os.as_ref() {
        Some(os) if os.name != OS => Err(Refusal::new(
            "PodOSNotSupported",
            "Failed to admit pod as the OS field doesn't match node OS",
        )),
        _ => Ok(()),
    }
}

pub(super) fn check_groups(pod: &Pod, strict_is_supported: bool) -> Result<(), Refusal> {
    let spec = spec_of(pod);
    let policy =
        spec.security_context.as_ref().and_then(|s| s.supplemental_groups_policy.as_deref());
    if policy != Some("Strict") || strict_is_supported {
        return Ok(());
    }
    let message = "SupplementalGroupsPolicy=Strict is not supported in this node";
    Err(Refusal::new("SupplementalGroupsPolicyNotSupported", message))
}

/// Features that nodes declare (`NodeDeclaredFeatures`), and what pods may hold that this node would
/// have to leave out: it refuses rather than run them without.
pub(super) fn check_declared(pod: &Pod) -> Result<(), Refusal> {
    let spec = spec_of(pod);
    let mut missing = Vec::new();
    if is_host_network(pod) && spec.host_users == Some(false) {
        missing.push("UserNamespacesHostNetworkSupport");
    }
    if missing.is_empty() {
        return Ok(());
    }
    let text = "Pod requires node features that are not available";
    Err(Refusal::new(UNSUPPORTED, format!("{text}: {}", missing.join(", "))))
}
