//! VolumeZone: a volume with a zone or region label is used in that zone or region.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::names;
use crate::event::{Action, ClusterEvent, Interest, Object, Resource};
use crate::framework::{
    Code, Cycle, Gap, Plugin, Points, PreFilter, Preparing, Status, Verdict, reject,
};
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::store::Listers;

const LABELS: [(&str, &str); 4] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("topology.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("topology.kubernetes.io/region", "topology.kubernetes.io/region"),
];
/// Separates the values of a label that names several zones.
const SEPARATOR: &str = "__";

#[derive(Debug)]
pub(crate) struct VolumeZone {
    pub(crate) listers: Arc<Listers>,
}

/// A label of the pod's volumes, its present name, and the values that will do.
type Zones = Vec<(&'static str, &'static str, Vec<String>)>;

#[derive(Debug, Clone)]
struct VolumeZones(Zones);

fn zones_of(volume: &PersistentVolume) -> Zones {
    let labels = volume.metadata.labels.as_ref();
    let found = LABELS.iter().filter_map(|(label, present)| {
        let value = labels?.get(*label)?;
        let values: Vec<String> = value.split(SEPARATOR).map(|v| v.trim().to_owned()).collect();
        // A label that names an empty zone is ignored, as upstream does.
        (!values.iter().any(String::is_empty)).then_some((*label, *present, values))
    });
    found.collect()
}

/// The class a claim asks for; empty for none.
pub(super) fn class_of(claim: &PersistentVolumeClaim) -> String {
    let annotated = claim.metadata.annotations.as_ref();
    let annotated = annotated.and_then(|a| a.get("volume.beta.kubernetes.io/storage-class"));
    let spec = claim.spec.as_ref().and_then(|s| s.storage_class_name.as_ref());
    annotated.or(spec).cloned().unwrap_or_default()
}

impl VolumeZone {
    fn zones(&self, pod: &PodInfo) -> Result<Zones, Arc<Status>> {
        let reject = |why: String| reject(Code::Unresolvable, names::VOLUME_ZONE, why);
        let mut zones = Zones::new();
        let volumes = pod.spec().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
        for claim in volumes.iter().filter_map(|v| v.persistent_volume_claim.as_ref()) {
            if claim.claim_name.is_empty() {
                return Err(reject("PersistentVolumeClaim had no name".into()));
            }
            let name = &claim.claim_name;
            let found = self.listers.claims.get(pod.namespace(), name);
            let claim = found
                .ok_or_else(|| reject(format!("persistentvolumeclaim \"{name}\" not found")))?;
            let volume = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or("");
            if volume.is_empty() {
                self.unbound(&claim).map_err(reject)?;
                continue;
            }
            let found = self.listers.volumes.get("", volume);
            let volume =
                found.ok_or_else(|| reject(format!("persistentvolume \"{volume}\" not found")))?;
            zones.extend(zones_of(&volume));
        }
        Ok(zones)
    }

    /// A claim without a volume is fine if its class waits for the pod.
    fn unbound(&self, claim: &PersistentVolumeClaim) -> Result<(), String> {
        let name = class_of(claim);
        if name.is_empty() {
            return Err("PersistentVolumeClaim had no pv name and storageClass name".into());
        }
        let class = self.listers.classes.get("", &name);
        let class =
            class.ok_or_else(|| format!("storageclass.storage.k8s.io \"{name}\" not found"))?;
        match class.volume_binding_mode.as_deref() {
            None => Err(format!("VolumeBindingMode not set for StorageClass \"{name}\"")),
            Some("WaitForFirstConsumer") => Ok(()),
            Some(_) => Err("PersistentVolume had no name".into()),
        }
    }
}

fn mismatch<'a>(
    zones: &'a Zones,
    node: &NodeInfo,
) -> Option<&'a (&'static str, &'static str, Vec<String>)> {
    if LABELS.iter().all(|(label, _)| node.label(label).is_none()) {
        return None;
    }
    zones.iter().find(|(label, present, values)| {
        let here = node.label(label).or_else(|| node.label(present));
        !here.is_some_and(|here| values.iter().any(|v| v == here))
    })
}

impl Plugin for VolumeZone {
    fn name(&self) -> &'static str {
        names::VOLUME_ZONE
    }

    fn points(&self) -> Points {
        Points::PRE_FILTER.and(Points::FILTER)
    }

    fn events(&self) -> &'static [Interest] {
        &[
            (Resource::StorageClass, Action::ADD),
            (Resource::Node, Action::ADD),
            (Resource::Node, Action::NODE_LABEL),
            (Resource::Claim, Action::ADD),
            (Resource::Claim, Action::UPDATE),
            (Resource::Volume, Action::ADD),
            (Resource::Volume, Action::UPDATE),
        ]
    }

    fn queueing_hint(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        match &event.object {
            Object::StorageClass((_, Some(class))) => {
                class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
            }
            Object::Claim((_, Some(claim))) => super::is_claim_of(pod, claim),
            Object::Volume((Some(old), Some(new))) => zones_of(old) != zones_of(new),
            _ => true,
        }
    }

    fn pre_filter(&self, cycle: &mut Preparing<'_>) -> PreFilter {
        match self.zones(cycle.pod) {
            Err(status) => PreFilter::Reject(status),
            Ok(zones) if zones.is_empty() => PreFilter::Skip,
            Ok(zones) => {
                cycle.state.set(VolumeZones(zones));
                PreFilter::Continue
            }
        }
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Verdict {
        let Some(VolumeZones(zones)) = cycle.state.get::<VolumeZones>() else { return Ok(()) };
        if mismatch(zones, node).is_none() {
            return Ok(());
        }
        Err(reject(Code::Unresolvable, self.name(), "node(s) had no available volume zone"))
    }

    fn gap(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Option<Gap> {
        let VolumeZones(zones) = cycle.state.get::<VolumeZones>()?;
        let (_, present, values) = mismatch(zones, node)?;
        let remedy = format!("a volume that is not bound to {present}={}", values.join(SEPARATOR));
        Some(Gap { distance: 2.0, remedy })
    }
}
