//! The pods of a StatefulSet.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume};

use super::claims::claims;
use super::identity::{POD_INDEX, POD_NAME, ordinal, pod_name, spec};
use crate::harness::history::REVISION_HASH;
use crate::meta::{managed_by, name, namespace};
use crate::pods::from_template;

/// The pod with this ordinal, of `template`, which `revision` names.
pub(crate) fn pod(
    set: &StatefulSet,
    template: &PodTemplateSpec,
    revision: &str,
    ordinal: i32,
) -> Pod {
    let (space, own) = (namespace(&set.metadata), name(&set.metadata));
    let mut pod = from_template(template, space, own, managed_by(set));
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(pod_name(set, ordinal));
    set_identity(set, &mut pod);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(REVISION_HASH.into(), revision.into());
    let pod_spec = pod.spec.get_or_insert_default();
    pod_spec.hostname = pod.metadata.name.clone();
    pod_spec.subdomain = spec(set).service_name.clone();
    set_volumes(set, &mut pod, ordinal);
    pod
}

/// The revision that the pod was made from.
pub(crate) fn revision_of(pod: &Pod) -> &str {
    let labels = pod.metadata.labels.as_ref();
    labels.and_then(|l| l.get(REVISION_HASH)).map_or("", String::as_str)
}

/// The pod with its labels and volumes as they are to be; `None` if they are.
pub(crate) fn corrected(set: &StatefulSet, pod: &Pod) -> Option<Pod> {
    let ordinal = ordinal(pod)?;
    let mut new = pod.clone();
    let labels = pod.metadata.labels.as_ref();
    if labels.and_then(|l| l.get(POD_NAME)) != pod.metadata.name.as_ref() {
        set_identity(set, &mut new);
    }
    if !has_volumes(set, pod, ordinal) {
        set_volumes(set, &mut new, ordinal);
    }
    (new != *pod).then_some(new)
}

fn set_identity(set: &StatefulSet, pod: &mut Pod) {
    let Some(ordinal) = ordinal(pod) else { return };
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.into(), pod_name(set, ordinal));
    labels.insert(POD_INDEX.into(), ordinal.to_string());
}

fn has_volumes(set: &StatefulSet, pod: &Pod, ordinal: i32) -> bool {
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    claims(set, ordinal).iter().all(|(volume, claim)| {
        let there = volumes.iter().find(|v| v.name == *volume);
        let source = there.and_then(|v| v.persistent_volume_claim.as_ref());
        source.is_some_and(|s| s.claim_name == name(&claim.metadata))
    })
}

/// Volumes of the claims take the place of the template's of the same name.
fn set_volumes(set: &StatefulSet, pod: &mut Pod, ordinal: i32) {
    let claims = claims(set, ordinal);
    if claims.is_empty() {
        return;
    }
    let volumes = pod.spec.get_or_insert_default().volumes.get_or_insert_default();
    volumes.retain(|v| claims.iter().all(|(name, _)| *name != v.name));
    let of_claims = claims.into_iter().map(|(volume, claim)| Volume {
        name: volume,
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.metadata.name.unwrap_or_default(),
            read_only: None,
        }),
        ..Volume::default()
    });
    volumes.splice(0..0, of_claims);
}
