//! The claims that a pod's ephemeral volumes need.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{EphemeralVolumeSource, PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::meta::{controller, managed_by, name, namespace, uid};
use crate::pods::active;

#[derive(Debug, PartialEq)]
pub(crate) enum Missing {
    /// For the volume of this name.
    Claim(String, Box<PersistentVolumeClaim>),
    /// A claim of the name is there and is not this pod's.
    Foreign(String),
}

fn ephemeral(pod: &Pod) -> impl Iterator<Item = (&Volume, &EphemeralVolumeSource)> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    volumes.filter_map(|v| v.ephemeral.as_ref().map(|source| (v, source)))
}

pub(crate) fn has_ephemeral(pod: &Pod) -> bool {
    ephemeral(pod).next().is_some()
}

pub(crate) fn missing(
    pod: &Pod,
    present: impl Fn(&str) -> Option<Arc<PersistentVolumeClaim>>,
) -> Vec<Missing> {
    if !active(pod) {
        return Vec::new();
    }
    let mut missing = Vec::new();
    for (volume, source) in ephemeral(pod) {
        let own = format!("{}-{}", name(&pod.metadata), volume.name);
        match present(&own) {
            Some(claim) => {
                let owner = controller(&claim.metadata);
                if owner.is_none_or(|o| o.uid != uid(&pod.metadata)) {
                    let space = namespace(&pod.metadata);
                    missing.push(Missing::Foreign(format!(
                        "ephemeral volume {}: PVC {space}/{own} was not created for pod {space}/{} \
                         (pod is not owner)",
                        volume.name,
                        name(&pod.metadata)
                    )));
                }
            }
            None => {
                let claim = claim(pod, own, source);
                missing.push(Missing::Claim(volume.name.clone(), Box::new(claim)));
            }
        }
    }
    missing
}

fn claim(pod: &Pod, own: String, source: &EphemeralVolumeSource) -> PersistentVolumeClaim {
    let template = source.volume_claim_template.clone().unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(own),
            namespace: pod.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            owner_references: Some(vec![managed_by(pod)]),
            ..ObjectMeta::default()
        },
        spec: Some(template.spec),
        status: None,
    }
}
