//! Who uses what, and which finalizers follow from that.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use crate::meta::{controller, name, uid};
use crate::pods;

fn protected(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.finalizers.iter().flatten().any(|f| f == finalizer)
}

/// To be deleted, and held back by the finalizer.
pub(super) fn ending(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.deletion_timestamp.is_some() && protected(meta, finalizer)
}

/// Whether the finalizer is missing or may be one too many.
pub(super) fn open(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.deletion_timestamp.is_some() == protected(meta, finalizer)
}

/// What to change in the metadata, for the revision looked at only.
pub(super) fn change(meta: &ObjectMeta, finalizer: &str, used: bool) -> Option<Value> {
    if !open(meta, finalizer) {
        return None;
    }
    let ending = meta.deletion_timestamp.is_some();
    if ending && used {
        return None;
    }
    let others = meta.finalizers.iter().flatten().filter(|f| *f != finalizer);
    let mut finalizers: Vec<&str> = others.map(String::as_str).collect();
    if !ending {
        finalizers.push(finalizer);
    }
    let finalizers = if finalizers.is_empty() { Value::Null } else { json!(finalizers) };
    Some(json!({"resourceVersion": meta.resource_version, "finalizers": finalizers}))
}

/// The claim that a pod's volume is made of.
fn claim_of(pod: &Pod, volume: &Volume) -> Option<String> {
    match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => Some(source.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", name(&pod.metadata), volume.name)),
        (None, None) => None,
    }
}

fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|s| s.volumes.iter().flatten())
}

/// The names of all claims a pod refers to.
pub(super) fn claims_of(pod: &Pod) -> Vec<String> {
    volumes(pod).filter_map(|v| claim_of(pod, v)).collect()
}

/// Ended by its kubelet or by force; only its removal is to come. Then it gives up the claims made
/// for it: its own finalizers may wait for these claims to go.
fn shut_down(pod: &Pod) -> bool {
    let meta = &pod.metadata;
    meta.deletion_timestamp.is_some() && meta.deletion_grace_period_seconds == Some(0)
}

/// Whether a claim may become free by the pod being as it is now.
pub(super) fn lets_go(pod: &Pod) -> bool {
    pods::node(pod).is_empty() || shut_down(pod)
}

/// Whether a pod of the claim's namespace keeps it. Pods without a node do not: a kubelet starts
/// nothing on a claim that is to be deleted.
pub(super) fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    if pods::node(pod).is_empty() {
        return false;
    }
    let wanted = name(&claim.metadata);
    volumes(pod).any(|volume| {
        let this = claim_of(pod, volume).is_some_and(|n| n == wanted);
        let own =
            || controller(&claim.metadata).is_some_and(|owner| owner.uid == uid(&pod.metadata));
        let foreign = volume.persistent_volume_claim.is_some();
        this && (foreign || (!shut_down(pod) && own()))
    })
}

/// Bound volumes are in use.
pub(super) fn bound(volume: &PersistentVolume) -> bool {
    volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound")
}

/// The volume attributes classes a claim has, wants, or is on its way to.
pub(super) fn classes_of_claim(claim: &PersistentVolumeClaim) -> Vec<String> {
    let spec = claim.spec.as_ref().and_then(|s| s.volume_attributes_class_name.clone());
    let status = claim.status.as_ref();
    let current = status.and_then(|s| s.current_volume_attributes_class_name.clone());
    let modified = status.and_then(|s| s.modify_volume_status.as_ref());
    let target = modified.and_then(|m| m.target_volume_attributes_class_name.clone());
    let mut names: Vec<String> =
        [spec, current, target].into_iter().flatten().filter(|n| !n.is_empty()).collect();
    names.sort();
    names.dedup();
    names
}

pub(super) fn classes_of_volume(volume: &PersistentVolume) -> Vec<String> {
    let name = volume.spec.as_ref().and_then(|s| s.volume_attributes_class_name.clone());
    name.into_iter().filter(|n| !n.is_empty()).collect()
}
