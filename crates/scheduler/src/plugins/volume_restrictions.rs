//! VolumeRestrictions: disks that one node (or one pod) may use at a time.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Volume};

use super::names;
use crate::event::{Action, ClusterEvent, Interest, Object, Resource};
use crate::framework::{
    Code, Cycle, CycleState, Gap, Plugin, Points, PreFilter, Preparing, Verdict, reject,
};
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::store::Listers;

#[derive(Debug)]
pub(crate) struct VolumeRestrictions {
    pub(crate) listers: Arc<Listers>,
}

#[derive(Debug, Clone)]
struct Claimed {
    /// The pod's claims that one pod at a time may use.
    exclusive: Vec<String>,
    /// How often other pods use them.
    users: i64,
}

fn volumes(pod: &Pod) -> &[Volume] {
    pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default()
}

fn restricted(volume: &Volume) -> bool {
    volume.gce_persistent_disk.is_some()
        || volume.aws_elastic_block_store.is_some()
        || volume.rbd.is_some()
        || volume.iscsi.is_some()
}

fn read_only(a: Option<bool>, b: Option<bool>) -> bool {
    a == Some(true) && b == Some(true)
}

/// Whether two pods may not have these on one node.
fn conflict(a: &Volume, b: &Volume) -> bool {
    if let (Some(a), Some(b)) = (&a.gce_persistent_disk, &b.gce_persistent_disk)
        && a.pd_name == b.pd_name
        && !read_only(a.read_only, b.read_only)
    {
        return true;
    }
    if let (Some(a), Some(b)) = (&a.aws_elastic_block_store, &b.aws_elastic_block_store)
        && a.volume_id == b.volume_id
    {
        return true;
    }
    if let (Some(a), Some(b)) = (&a.iscsi, &b.iscsi)
        && a.iqn == b.iqn
        && !read_only(a.read_only, b.read_only)
    {
        return true;
    }
    if let (Some(a), Some(b)) = (&a.rbd, &b.rbd) {
        let pool = |p: &Option<String>| p.clone().unwrap_or_else(|| "rbd".into());
        return a.monitors.iter().any(|m| b.monitors.contains(m))
            && pool(&a.pool) == pool(&b.pool)
            && a.image == b.image
            && !read_only(a.read_only, b.read_only);
    }
    false
}

fn conflicts(wanted: &Pod, other: &Pod) -> bool {
    let restricted = volumes(wanted).iter().filter(|v| restricted(v));
    restricted.into_iter().any(|a| volumes(other).iter().any(|b| conflict(a, b)))
}

fn named_claims(pod: &Pod) -> impl Iterator<Item = &String> {
    volumes(pod).iter().filter_map(|v| Some(&v.persistent_volume_claim.as_ref()?.claim_name))
}

impl VolumeRestrictions {
    fn try_pod(&self, cycle: &Cycle<'_>, state: &mut CycleState, pod: &PodInfo, amount: i64) {
        let Some(claimed) = state.get_mut::<Claimed>() else { return };
        if pod.namespace() == cycle.pod.namespace() {
            let uses = |name: &&String| claimed.exclusive.contains(name);
            let count = named_claims(&pod.pod).filter(uses).count();
            claimed.users += amount * i64::try_from(count).unwrap_or(0);
        }
    }
}

impl Plugin for VolumeRestrictions {
    fn name(&self) -> &'static str {
        names::VOLUME_RESTRICTIONS
    }

    fn points(&self) -> Points {
        Points::PRE_FILTER.and(Points::FILTER)
    }

    fn events(&self) -> &'static [Interest] {
        &[
            (Resource::Pod, Action::DELETE),
            (Resource::Node, Action::ADD),
            (Resource::Claim, Action::ADD),
        ]
    }

    fn queueing_hint(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        match &event.object {
            Object::Pod((Some(old), None)) => {
                let shares = |name: &String| named_claims(old).any(|other| other == name);
                old.metadata.namespace == pod.pod.metadata.namespace
                    && (conflicts(&pod.pod, old) || named_claims(&pod.pod).any(shares))
            }
            Object::Claim((_, Some(claim))) => {
                claim.metadata.namespace.as_deref() == Some(pod.namespace())
                    && named_claims(&pod.pod).any(|n| claim.metadata.name.as_ref() == Some(n))
            }
            _ => true,
        }
    }

    fn pre_filter(&self, cycle: &mut Preparing<'_>) -> PreFilter {
        let pod = cycle.pod;
        let mut exclusive = Vec::new();
        for name in named_claims(&pod.pod) {
            let Some(claim) = self.listers.claims.get(pod.namespace(), name) else {
                let why = format!("persistentvolumeclaim \"{name}\" not found");
                return PreFilter::Reject(reject(Code::Unresolvable, self.name(), why));
            };
            let modes = claim.spec.as_ref().and_then(|s| s.access_modes.as_ref());
            if modes.into_iter().flatten().any(|m| m == "ReadWriteOncePod") {
                exclusive.push(name.clone());
            }
        }
        let users =
            exclusive.iter().filter(|c| cycle.snapshot.index.claim_users(pod.namespace(), c) > 0);
        let users = i64::try_from(users.count()).unwrap_or(0);
        if users == 0 && !volumes(&pod.pod).iter().any(restricted) {
            return PreFilter::Skip;
        }
        cycle.state.set(Claimed { exclusive, users });
        PreFilter::Continue
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Verdict {
        if node.pods.iter().any(|other| conflicts(&cycle.pod.pod, &other.pod)) {
            let why = "node(s) had no available disk";
            return Err(reject(Code::Unschedulable, self.name(), why));
        }
        if cycle.state.get::<Claimed>().is_some_and(|c| c.users > 0) {
            let why = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod \
                       access mode already in-use by another pod";
            return Err(reject(Code::Unschedulable, self.name(), why));
        }
        Ok(())
    }

    fn add_pod(&self, cycle: &Cycle<'_>, state: &mut CycleState, pod: &PodInfo, _: &NodeInfo) {
        self.try_pod(cycle, state, pod, 1);
    }

    fn remove_pod(&self, cycle: &Cycle<'_>, state: &mut CycleState, pod: &PodInfo, _: &NodeInfo) {
        self.try_pod(cycle, state, pod, -1);
    }

    fn gap(&self, _: &Cycle<'_>, _: &NodeInfo) -> Option<Gap> {
        Some(Gap { distance: 1.0, remedy: "the end of the pod that uses its volume".into() })
    }
}
