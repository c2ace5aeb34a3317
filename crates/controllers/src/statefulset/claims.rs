//! The claims of a StatefulSet's pods, and who owns them by the retention policy.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::identity::{claim_name, ordinal, position, spec};
use crate::meta::{managed_by, name, uid};

/// The claims of the pod with this ordinal, by the volume they are for.
pub(crate) fn claims(set: &StatefulSet, ordinal: i32) -> Vec<(String, PersistentVolumeClaim)> {
    let templates = spec(set).volume_claim_templates.iter().flatten();
    let selector = spec(set).selector.match_labels.clone().unwrap_or_default();
    templates
        .map(|template| {
            let volume = name(&template.metadata).to_owned();
            let mut claim = template.clone();
            claim.metadata.name = Some(claim_name(set, &volume, ordinal));
            claim.metadata.namespace = set.metadata.namespace.clone();
            claim.metadata.labels.get_or_insert_default().extend(selector.clone());
            claim.status = None;
            (volume, claim)
        })
        .collect()
}

/// Who owns claims, so that they go when the owner goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Policy {
    /// With the set.
    when_deleted: bool,
    /// With a pod that the set is scaled down by.
    when_scaled: bool,
}

fn policy(set: &StatefulSet) -> Policy {
    let of = spec(set).persistent_volume_claim_retention_policy.as_ref();
    let deletes = |text: Option<&String>| text.is_some_and(|t| t == "Delete");
    Policy {
        when_deleted: deletes(of.and_then(|p| p.when_deleted.as_ref())),
        when_scaled: deletes(of.and_then(|p| p.when_scaled.as_ref())),
    }
}

fn refers_to_set(reference: &OwnerReference, set: &StatefulSet) -> bool {
    reference.api_version == "apps/v1"
        && reference.kind == "StatefulSet"
        && reference.name == name(&set.metadata)
}

fn refers_to_pod(reference: &OwnerReference, pod: &Pod) -> bool {
    reference.api_version == "v1"
        && reference.kind == "Pod"
        && reference.name == name(&pod.metadata)
}

/// Whether the claim still belongs to an earlier pod of this name, with which it will go.
pub(crate) fn is_stale(set: &StatefulSet, pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    policy(set).when_scaled && has_stale_owner(set, pod, claim, false)
}

fn has_stale_owner(
    set: &StatefulSet,
    pod: &Pod,
    claim: &PersistentVolumeClaim,
    or_set: bool,
) -> bool {
    claim.metadata.owner_references.iter().flatten().any(|r| {
        (refers_to_pod(r, pod) && r.uid != uid(&pod.metadata))
            || (or_set && refers_to_set(r, set) && r.uid != uid(&set.metadata))
    })
}

/// Whether a controller other than the set and the pod has the claim.
pub(crate) fn is_foreign(set: &StatefulSet, pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    if policy(set) == (Policy { when_deleted: false, when_scaled: false }) {
        return false;
    }
    claim.metadata.owner_references.iter().flatten().any(|r| {
        if refers_to_set(r, set) {
            r.uid != uid(&set.metadata)
        } else if refers_to_pod(r, pod) {
            r.uid != uid(&pod.metadata)
        } else {
            r.controller == Some(true)
        }
    })
}

/// The claim with the owners that the policy asks for; `None` if it has them.
pub(crate) fn with_owners(
    set: &StatefulSet,
    pod: &Pod,
    claim: &PersistentVolumeClaim,
) -> Option<PersistentVolumeClaim> {
    // What an earlier set or pod of the name owns goes with it.
    if has_stale_owner(set, pod, claim, true) {
        return None;
    }
    let present = claim.metadata.owner_references.clone().unwrap_or_default();
    let ours = |r: &OwnerReference| refers_to_set(r, set) || refers_to_pod(r, pod);
    let mut wanted: Vec<OwnerReference> = present.iter().filter(|r| !ours(r)).cloned().collect();
    if !is_foreign(set, pod, claim) {
        let scaled_down = ordinal(pod).is_some_and(|o| position(set, o).is_none());
        let Policy { when_deleted, when_scaled } = policy(set);
        if when_scaled && scaled_down {
            wanted.push(managed_by(pod));
        } else if when_deleted {
            wanted.push(managed_by(set));
        }
    }
    let same = |a: &[OwnerReference], b: &[OwnerReference]| {
        let key = |r: &OwnerReference| (r.uid.clone(), r.controller == Some(true));
        let sorted = |refs: &[OwnerReference]| {
            let mut keys: Vec<_> = refs.iter().map(key).collect();
            keys.sort();
            keys
        };
        sorted(a) == sorted(b)
    };
    if same(&present, &wanted) {
        return None;
    }
    let mut new = claim.clone();
    new.metadata.owner_references = Some(wanted).filter(|refs| !refs.is_empty());
    Some(new)
}
