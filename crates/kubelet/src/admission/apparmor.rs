//! AppArmor profiles: enforced, or the pod is refused.

use k8s_openapi::api::core::v1::{AppArmorProfile, Container, Pod};

use super::Refusal;
use crate::spec::security::effective;
use crate::spec::{as_container, spec_of};

const REASON: &str = "AppArmor";
/// The form from before the fields; the API copies either to the other.
const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
const UNCONFINED: &str = "unconfined";

/// Whether the kernel enforces AppArmor.
pub(crate) fn is_enabled() -> bool {
    let enabled = std::fs::read("/sys/module/apparmor/parameters/enabled");
    std::path::Path::new("/sys/kernel/security/apparmor").exists()
        && enabled.is_ok_and(|text| text.first() == Some(&b'Y'))
}

fn confines(profile: &AppArmorProfile) -> bool {
    profile.type_ != "Unconfined"
}

/// Whether a profile other than none is asked for anywhere.
fn is_required(pod: &Pod) -> bool {
    let spec = spec_of(pod);
    let of_pod = spec.security_context.as_ref().and_then(|s| s.app_armor_profile.as_ref());
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    let own = |context: &Option<k8s_openapi::api::core::v1::SecurityContext>| {
        context.as_ref().and_then(|s| s.app_armor_profile.as_ref()).is_some_and(confines)
    };
    let noted = pod.metadata.annotations.iter().flatten();
    of_pod.is_some_and(confines)
        || all.into_iter().any(|c| own(&c.security_context))
        || ephemeral.into_iter().any(|c| own(&c.security_context))
        || noted.into_iter().any(|(key, value)| key.starts_with(ANNOTATION) && value != UNCONFINED)
}

pub(super) fn check(pod: &Pod, enabled: bool) -> Result<(), Refusal> {
    // One that has started is not stopped for it.
    let pending = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending");
    if pending != "Pending" || !is_required(pod) {
        return Ok(());
    }
    let fail = |why: &str| Err(Refusal::new(REASON, format!("Cannot enforce AppArmor: {why}")));
    if !enabled {
        return fail("AppArmor is not enabled on the host");
    }
    let spec = spec_of(pod);
    let ephemeral: Vec<Container> =
        spec.ephemeral_containers.iter().flatten().map(as_container).collect();
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    for container in all.chain(&ephemeral) {
        let profile = effective(pod, container).app_armor_profile;
        let Some(profile) = profile.filter(|p| p.type_ == "Localhost") else { continue };
        let name = profile.localhost_profile.unwrap_or_default();
        if name.trim().is_empty() {
            return fail(&format!("invalid empty AppArmor profile name: {name:?}"));
        }
    }
    Ok(())
}
