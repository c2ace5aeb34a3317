//! What becomes of a claim whose consumers go.

use devices::FINALIZER;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimConsumerReference};

fn has_finalizer(claim: &ResourceClaim) -> bool {
    claim.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER)
}

fn ends(claim: &ResourceClaim) -> bool {
    claim.metadata.deletion_timestamp.is_some()
}

/// The claim without the reservations that are not kept; with the last of them its devices go. None when
/// that changes nothing. A claim that was never reserved keeps its devices until it ends.
pub(super) fn freed(
    claim: &ResourceClaim,
    kept: Vec<ResourceClaimConsumerReference>,
) -> Option<ResourceClaim> {
    let status = claim.status.as_ref()?;
    let fewer = kept.len() < status.reserved_for.as_ref().map_or(0, Vec::len);
    let deallocates = kept.is_empty()
        && has_finalizer(claim)
        && status.allocation.is_some()
        && (fewer || ends(claim));
    if !fewer && !deallocates {
        return None;
    }
    let mut freed = claim.clone();
    let status = freed.status.get_or_insert_default();
    status.reserved_for = Some(kept).filter(|kept| !kept.is_empty());
    if deallocates {
        status.allocation = None;
    }
    Some(freed)
}

/// The claim without the finalizer, when it has no devices and nobody holds it; none if it has none or has
/// to keep it. A claim that does not end and was not just freed may be on its way to its devices: the
/// scheduler writes the finalizer first.
pub(super) fn without_finalizer(
    before: &ResourceClaim,
    latest: &ResourceClaim,
) -> Option<ResourceClaim> {
    let status = |c: &ResourceClaim| c.status.clone().unwrap_or_default();
    let was_reserved = status(before).reserved_for.is_some_and(|all| !all.is_empty());
    let held = status(latest).reserved_for.is_some_and(|all| !all.is_empty());
    let bare = status(latest).allocation.is_none() && !held;
    if !has_finalizer(latest) || !bare || !(was_reserved || ends(latest)) {
        return None;
    }
    let mut open = latest.clone();
    open.metadata.finalizers.iter_mut().for_each(|all| all.retain(|f| f != FINALIZER));
    Some(open)
}

/// Name and uid of the pod that the claim was made for.
pub(super) fn owning_pod(claim: &ResourceClaim) -> Option<(&str, &str)> {
    let owners = claim.metadata.owner_references.iter().flatten();
    let mut pods = owners.filter(|owner| {
        owner.controller == Some(true) && owner.api_version == "v1" && owner.kind == "Pod"
    });
    pods.next().map(|owner| (owner.name.as_str(), owner.uid.as_str()))
}
