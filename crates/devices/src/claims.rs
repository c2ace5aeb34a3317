//! Which ResourceClaims a pod has (`dynamic-resource-allocation/resourceclaim`).

use k8s_openapi::api::core::v1::{Pod, PodResourceClaim};
use k8s_openapi::api::resource::v1::ResourceClaim;

/// The claim behind an entry of a pod's `resourceClaims`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimName<'a> {
    /// Named by the user.
    Given(&'a str),
    /// Generated from a template; its owner must be the pod ([`is_for_pod`]).
    Generated(&'a str),
    /// It was decided that no claim is needed.
    NotNeeded,
}

impl<'a> ClaimName<'a> {
    pub fn name(self) -> Option<&'a str> {
        match self {
            ClaimName::Given(name) | ClaimName::Generated(name) => Some(name),
            ClaimName::NotNeeded => None,
        }
    }
}

/// Why an entry has no claim yet, in upstream's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unnamed {
    NotCreated(String),
    Unsupported(String),
}

impl std::fmt::Display for Unnamed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unnamed::NotCreated(why) | Unnamed::Unsupported(why) => f.write_str(why),
        }
    }
}

fn text(of: &Option<String>) -> &str {
    of.as_deref().unwrap_or("")
}

/// The claim of an entry.
pub fn claim_name<'a>(pod: &'a Pod, entry: &'a PodResourceClaim) -> Result<ClaimName<'a>, Unnamed> {
    let (space, name) = (text(&pod.metadata.namespace), text(&pod.metadata.name));
    if let Some(given) = &entry.resource_claim_name {
        return Ok(ClaimName::Given(given));
    }
    if entry.resource_claim_template_name.is_none() {
        return Err(Unnamed::Unsupported(format!(
            "pod \"{space}/{name}\", spec.resourceClaim {:?}: none of the supported fields are set",
            entry.name
        )));
    }
    let status = pod.status.as_ref().and_then(|s| s.resource_claim_statuses.as_deref());
    let generated = status.unwrap_or_default().iter().find(|s| s.name == entry.name);
    match generated.map(|s| s.resource_claim_name.as_deref()) {
        Some(Some(name)) => Ok(ClaimName::Generated(name)),
        Some(None) => Ok(ClaimName::NotNeeded),
        None => Err(Unnamed::NotCreated(format!(
            "pod \"{space}/{name}\": ResourceClaim not created yet"
        ))),
    }
}

/// Whether the claim was created for the pod; if not, why, in upstream's words.
pub fn is_for_pod(pod: &Pod, claim: &ResourceClaim) -> Result<(), String> {
    let owners = claim.metadata.owner_references.iter().flatten();
    let mut controllers = owners.filter(|owner| owner.controller == Some(true));
    if controllers.next().is_some_and(|owner| owner.uid == text(&pod.metadata.uid)) {
        return Ok(());
    }
    Err(format!(
        "ResourceClaim {}/{} was not created for Pod {}/{} (Pod is not owner)",
        text(&claim.metadata.namespace),
        text(&claim.metadata.name),
        text(&pod.metadata.namespace),
        text(&pod.metadata.name),
    ))
}

/// Whether the claim is reserved for what has this uid.
pub fn is_reserved_for(claim: &ResourceClaim, uid: &str) -> bool {
    let reserved = claim.status.as_ref().and_then(|s| s.reserved_for.as_deref());
    reserved.unwrap_or_default().iter().any(|consumer| consumer.uid == uid)
}
