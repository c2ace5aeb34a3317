//! NodeVolumeLimits: how many volumes of a CSI driver can be attached to a node.
//!
//! Volumes of the old in-tree drivers (which upstream counts for the CSI drivers that took them over) are
//! not counted.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::storage::v1::CSINode;

use super::names;
use super::volume_zone::class_of;
use crate::event::{Action, ClusterEvent, Interest, Object, Resource};
use crate::framework::{
    Code, Cycle, Gap, Plugin, Points, PreFilter, Preparing, Status, Verdict, reject,
};
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::store::Listers;

#[derive(Debug)]
pub(crate) struct NodeVolumeLimits {
    pub(crate) listers: Arc<Listers>,
}

/// Driver and handle.
type VolumeId = (String, String);

fn limits(node: &CSINode) -> HashMap<&str, i64> {
    let drivers = node.spec.drivers.iter();
    let limited =
        drivers.filter_map(|d| Some((d.name.as_str(), i64::from(d.allocatable.as_ref()?.count?))));
    limited.collect()
}

impl NodeVolumeLimits {
    /// The volumes of the pod's claims.
    fn volumes(&self, pod: &PodInfo, is_new: bool) -> Result<HashSet<VolumeId>, Arc<Status>> {
        let mut volumes = HashSet::new();
        for name in &pod.claims {
            let Some(claim) = self.listers.claims.get(pod.namespace(), name) else {
                if !is_new {
                    continue;
                }
                let why = format!(
                    "looking up PVC {}/{name}: persistentvolumeclaim \"{name}\" not found",
                    pod.namespace()
                );
                return Err(reject(Code::Unresolvable, names::NODE_VOLUME_LIMITS, why));
            };
            let volume = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or("");
            let found = self.listers.volumes.get("", volume).filter(|_| !volume.is_empty());
            match found {
                Some(volume) => {
                    let csi = volume.spec.as_ref().and_then(|s| s.csi.as_ref());
                    volumes.extend(csi.map(|c| (c.driver.clone(), c.volume_handle.clone())));
                }
                // A volume that is yet to be made is one of its class's driver.
                None => {
                    let class = self.listers.classes.get("", &class_of(&claim));
                    let handle = format!("unbound\0{}/{name}", pod.namespace());
                    volumes.extend(class.map(|c| (c.provisioner.clone(), handle)));
                }
            }
        }
        Ok(volumes)
    }

    /// Volumes that are attached to the node without a pod that uses them.
    fn attached(&self, node: &str) -> HashSet<VolumeId> {
        let here = self.listers.attachments.list().into_iter().filter(|a| a.spec.node_name == node);
        let volume = |attacher: String, name: Option<String>| {
            let volume = self.listers.volumes.get("", &name?)?;
            let handle = volume.spec.as_ref()?.csi.as_ref()?.volume_handle.clone();
            Some((attacher, handle))
        };
        here.filter_map(|a| {
            volume(a.spec.attacher.clone(), a.spec.source.persistent_volume_name.clone())
        })
        .collect()
    }

    /// The first driver whose limit the pod exceeds, the limit, and how many volumes there would be.
    fn exceeded(
        &self,
        pod: &PodInfo,
        node: &NodeInfo,
    ) -> Result<Option<(String, i64, i64)>, Arc<Status>> {
        let mut wanted = self.volumes(pod, true)?;
        let Some(csi_node) = self.listers.csi_nodes.get("", &node.name) else { return Ok(None) };
        let limits = limits(&csi_node);
        wanted.retain(|(driver, _)| limits.contains_key(driver.as_str()));
        if wanted.is_empty() {
            return Ok(None);
        }
        let mut used = self.attached(&node.name);
        for other in node.pods.iter().filter(|p| !p.claims.is_empty()) {
            used.extend(self.volumes(other, false)?);
        }
        wanted.retain(|volume| !used.contains(volume));
        let mut drivers: Vec<&str> = wanted.iter().map(|(d, _)| d.as_str()).collect();
        drivers.sort_unstable();
        for driver in drivers {
            let of = |all: &HashSet<VolumeId>| all.iter().filter(|(d, _)| d == driver).count();
            let total = i64::try_from(of(&used) + of(&wanted)).unwrap_or(i64::MAX);
            let limit = limits.get(driver).copied().unwrap_or(i64::MAX);
            if total > limit {
                return Ok(Some((driver.to_owned(), limit, total)));
            }
        }
        Ok(None)
    }
}

fn limit_grew(old: &CSINode, new: &CSINode) -> bool {
    let old = limits(old);
    limits(new).into_iter().any(|(driver, limit)| limit > old.get(driver).copied().unwrap_or(0))
}

impl Plugin for NodeVolumeLimits {
    fn name(&self) -> &'static str {
        names::NODE_VOLUME_LIMITS
    }

    fn points(&self) -> Points {
        Points::PRE_FILTER.and(Points::FILTER)
    }

    fn events(&self) -> &'static [Interest] {
        &[
            (Resource::CsiNode, Action::ADD),
            (Resource::CsiNode, Action::UPDATE),
            (Resource::Pod, Action::DELETE),
            (Resource::Claim, Action::ADD),
            (Resource::Attachment, Action::DELETE),
        ]
    }

    fn queueing_hint(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        match &event.object {
            Object::CsiNode((Some(old), Some(new))) => limit_grew(old, new),
            Object::Pod((Some(old), None)) => {
                let mut volumes = old.spec.iter().flat_map(|s| s.volumes.iter().flatten());
                volumes.any(|v| v.persistent_volume_claim.is_some() || v.ephemeral.is_some())
            }
            Object::Claim((_, Some(claim))) => super::is_claim_of(pod, claim),
            Object::Attachment => !pod.claims.is_empty(),
            _ => true,
        }
    }

    fn pre_filter(&self, cycle: &mut Preparing<'_>) -> PreFilter {
        if cycle.pod.claims.is_empty() { PreFilter::Skip } else { PreFilter::Continue }
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Verdict {
        match self.exceeded(cycle.pod, node)? {
            None => Ok(()),
            Some(_) => {
                let why = "node(s) exceed max volume count";
                Err(reject(Code::Unschedulable, self.name(), why))
            }
        }
    }

    fn gap(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Option<Gap> {
        let (driver, limit, total) = self.exceeded(cycle.pod, node).ok()??;
        let remedy = format!("{} fewer volumes of {driver} (at most {limit})", total - limit);
        Some(Gap { distance: 1.0, remedy })
    }
}
