//! VolumeBinding: claims that are bound must be reachable from the node; claims that wait for their first
//! pod are matched with volumes there, or provisioned for the node that is chosen
//! (`volume.kubernetes.io/selected-node`).

mod bind;
mod matching;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use client::Client;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::volume_zone::class_of;
use super::{is_claim_of, names};
use crate::event::{Action, ClusterEvent, Interest, Object, Resource};
use crate::framework::{
    BoxFuture, Code, Cycle, CycleState, Gap, Plugin, Points, PreFilter, Preparing, Status, Verdict,
    reject,
};
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::store::Listers;

/// The node that a claim's volume is to be provisioned for.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Says that the controller has finished binding a claim.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// Says that a controller, not a user, bound a volume.
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";

#[derive(Debug)]
pub(crate) struct VolumeBinding {
    pub(crate) listers: Arc<Listers>,
    pub(crate) client: Option<Client>,
    /// How long a pod waits for its volumes to be bound.
    pub(crate) bind_timeout: Duration,
}

/// The pod's claims by what has to happen with them.
#[derive(Debug, Clone, Default)]
struct Claims {
    bound: Vec<Arc<PersistentVolumeClaim>>,
    /// To be bound when a node is chosen.
    delayed: Vec<Arc<PersistentVolumeClaim>>,
    /// By class, the volumes that delayed claims may get.
    volumes: BTreeMap<String, Vec<Arc<PersistentVolume>>>,
}

/// What binding the pod to a node means for its claims.
#[derive(Debug, Clone, Default)]
struct NodePlan {
    matched: Vec<(Arc<PersistentVolumeClaim>, Arc<PersistentVolume>)>,
    provisioned: Vec<Arc<PersistentVolumeClaim>>,
}

#[derive(Debug, Clone, Default)]
struct State {
    claims: Claims,
    /// By slot; filled by Filter.
    plans: RefCell<HashMap<u32, NodePlan>>,
    slots: RefCell<HashMap<Arc<str>, u32>>,
    /// What Reserve assumed and PreBind writes.
    reserved: NodePlan,
}

fn is_fully_bound(claim: &PersistentVolumeClaim) -> bool {
    let volume = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or("");
    let annotations = claim.metadata.annotations.as_ref();
    !volume.is_empty() && annotations.is_some_and(|a| a.contains_key(BIND_COMPLETED))
}

impl VolumeBinding {
    fn rejected(&self, why: String) -> Arc<Status> {
        reject(Code::Unresolvable, names::VOLUME_BINDING, why)
    }

    /// The pod's claims, if all of them are in a state that scheduling can go on from.
    fn claims(&self, pod: &PodInfo) -> Result<Claims, Arc<Status>> {
        let mut claims = Claims::default();
        let mut immediate = false;
        for name in &pod.claims {
            let claim = self.claim(pod, name)?;
            if is_fully_bound(&claim) {
                claims.bound.push(claim);
                continue;
            }
            let unbound =
                claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or("").is_empty();
            if unbound && self.is_delayed(&claim)? {
                claims.delayed.push(claim);
            } else {
                immediate = true;
            }
        }
        if immediate {
            let why = "pod has unbound immediate PersistentVolumeClaims";
            return Err(self.rejected(why.into()));
        }
        for claim in &claims.delayed {
            let class = class_of(claim);
            let of = |v: &Arc<PersistentVolume>| matching::class_of_volume(v) == class;
            let listed = || self.listers.volumes.list().into_iter().filter(of).collect();
            claims.volumes.entry(class.clone()).or_insert_with(listed);
        }
        Ok(claims)
    }

    fn claim(&self, pod: &PodInfo, name: &str) -> Result<Arc<PersistentVolumeClaim>, Arc<Status>> {
        let volumes = pod.spec().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
        let generated = |v: &k8s_openapi::api::core::v1::Volume| {
            v.ephemeral.is_some() && format!("{}-{}", pod.name(), v.name) == name
        };
        let ephemeral = volumes.iter().any(generated);
        let Some(claim) = self.listers.claims.get(pod.namespace(), name) else {
            return Err(self.rejected(match ephemeral {
                true => format!(
                    "waiting for ephemeral volume controller to create the persistentvolumeclaim \
                     \"{name}\""
                ),
                false => format!("persistentvolumeclaim \"{name}\" not found"),
            }));
        };
        if claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Lost") {
            let volume =
                claim.spec.as_ref().and_then(|s| s.volume_name.clone()).unwrap_or_default();
            return Err(self.rejected(format!(
                "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \
                 \"{volume}\""
            )));
        }
        if claim.metadata.deletion_timestamp.is_some() {
            let why = format!("persistentvolumeclaim \"{name}\" is being deleted");
            return Err(self.rejected(why));
        }
        let owned = || {
            let owners = claim.metadata.owner_references.as_deref().unwrap_or_default();
            owners.iter().any(|o| o.controller == Some(true) && o.uid == pod.uid())
        };
        if ephemeral && !owned() {
            return Err(self.rejected(format!(
                "PVC {}/{name} was not created for pod {}/{} (pod is not owner)",
                pod.namespace(),
                pod.namespace(),
                pod.name()
            )));
        }
        Ok(claim)
    }

    fn is_delayed(&self, claim: &PersistentVolumeClaim) -> Result<bool, Arc<Status>> {
        let name = class_of(claim);
        let Some(class) = self.listers.classes.get("", &name) else { return Ok(false) };
        match class.volume_binding_mode.as_deref() {
            Some(mode) => Ok(mode == "WaitForFirstConsumer"),
            None => {
                let why = format!("VolumeBindingMode not set for StorageClass \"{name}\"");
                Err(reject(Code::Error, names::VOLUME_BINDING, why))
            }
        }
    }
}

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        names::VOLUME_BINDING
    }

    fn points(&self) -> Points {
        // Score is empty while the capacity scoring gate is off, as it is by default.
        let filter = Points::PRE_FILTER.and(Points::FILTER);
        filter.and(Points::RESERVE).and(Points::PRE_BIND).and(Points::PRE_SCORE).and(Points::SCORE)
    }

    fn events(&self) -> &'static [Interest] {
        &[
            (Resource::StorageClass, Action::ADD),
            (Resource::StorageClass, Action::UPDATE),
            (Resource::Claim, Action::ADD),
            (Resource::Claim, Action::UPDATE),
            (Resource::Volume, Action::ADD),
            (Resource::Volume, Action::UPDATE),
            (Resource::Node, Action::ADD),
            (Resource::Node, Action::NODE_LABEL),
            (Resource::CsiNode, Action::ADD),
            (Resource::CsiDriver, Action::UPDATE),
            (Resource::Capacity, Action::ADD),
            (Resource::Capacity, Action::UPDATE),
        ]
    }

    fn queueing_hint(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        match &event.object {
            Object::Claim((_, Some(claim))) => is_claim_of(pod, claim),
            Object::StorageClass((Some(old), Some(new))) => {
                old.allowed_topologies != new.allowed_topologies
            }
            Object::CsiDriver((Some(old), Some(new))) => {
                let asks = |d: &k8s_openapi::api::storage::v1::CSIDriver| {
                    d.spec.storage_capacity == Some(true)
                };
                asks(old) && !asks(new)
            }
            Object::Capacity((Some(old), Some(new))) => {
                matching::capacity_limit(new) > matching::capacity_limit(old)
            }
            _ => true,
        }
    }

    fn pre_filter(&self, cycle: &mut Preparing<'_>) -> PreFilter {
        if cycle.pod.claims.is_empty() {
            return PreFilter::Skip;
        }
        match self.claims(cycle.pod) {
            Err(status) => PreFilter::Reject(status),
            Ok(claims) => {
                cycle.state.set(State { claims, ..State::default() });
                PreFilter::Continue
            }
        }
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Verdict {
        let Some(state) = cycle.state.get::<State>() else { return Ok(()) };
        let plan = matching::plan(&self.listers, &state.claims, node)?;
        state.plans.borrow_mut().insert(node.slot, plan);
        state.slots.borrow_mut().insert(node.name.clone(), node.slot);
        Ok(())
    }

    fn pre_score(&self, _: &mut Preparing<'_>, _: &[u32]) -> bool {
        false
    }

    fn reserve(&self, state: &mut CycleState, _: &PodInfo, node: &str) -> Verdict {
        let Some(state) = state.get_mut::<State>() else { return Ok(()) };
        let slot = state.slots.borrow().get(node).copied();
        let plan = slot.and_then(|slot| state.plans.borrow_mut().remove(&slot));
        match bind::assume(&self.listers, plan.unwrap_or_default(), node) {
            Ok(reserved) => {
                state.reserved = reserved;
                Ok(())
            }
            Err(why) => Err(reject(Code::Error, names::VOLUME_BINDING, why)),
        }
    }

    fn unreserve(&self, state: &mut CycleState, _: &PodInfo, _: &str) {
        if let Some(state) = state.get_mut::<State>() {
            bind::forget(&self.listers, &std::mem::take(&mut state.reserved));
        }
    }

    fn pre_bind<'a>(
        &'a self,
        state: &'a mut CycleState,
        _: &'a PodInfo,
        node: &'a str,
    ) -> BoxFuture<'a, Result<(), String>> {
        let plan = state.get::<State>().map(|s| s.reserved.clone()).unwrap_or_default();
        Box::pin(async move {
            match &self.client {
                Some(client) if !(plan.matched.is_empty() && plan.provisioned.is_empty()) => {
                    bind::write(client, &plan).await?;
                    bind::wait(&self.listers, &plan, node, self.bind_timeout).await
                }
                _ => Ok(()),
            }
        })
    }

    fn gap(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Option<Gap> {
        let state = cycle.state.get::<State>()?;
        let status = matching::plan(&self.listers, &state.claims, node).err()?;
        let remedy = match &*status.message() {
            matching::NODE_CONFLICT => "a volume that can be reached from it",
            matching::BIND_CONFLICT => "a volume there that its claim can be bound to",
            matching::NO_SPACE => "more free storage there",
            _ => "the volume that its claim is bound to",
        };
        Some(Gap { distance: 2.0, remedy: remedy.into() })
    }
}
