//! Device taint eviction: ends pods whose devices have `NoExecute` taints that their claims do not
//! tolerate, or not for longer (`pkg/controller/devicetainteviction`). DeviceTaintRules are behind a gate
//! that is off in v1.36.
//!
//! Watches ResourceSlices, ResourceClaims and Pods.

mod plan;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::{
    Action, Change, Client, DeleteParams, Error, EventType, Index, IndexKey, Informer, Patch,
    Queue, Recorder,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceSlice};
use serde_json::json;

use crate::Context;
use crate::harness::Reconciler;
use crate::meta::{Key, key, namespace, now, reference, uid};

const NAME: &str = "device-taint-eviction-controller";
/// Pods ended at once (upstream's `--concurrent-device-taint-eviction-syncs`).
const WORKERS: usize = 8;

/// Slices, and claims with devices, by driver and pool.
struct ByPool;

impl IndexKey<ResourceSlice> for ByPool {
    fn values(slice: &ResourceSlice) -> Vec<String> {
        vec![plan::pool(&slice.spec.driver, &slice.spec.pool.name)]
    }
}

impl IndexKey<ResourceClaim> for ByPool {
    fn values(claim: &ResourceClaim) -> Vec<String> {
        let mut pools: Vec<String> =
            plan::results(claim).map(|r| plan::pool(&r.driver, &r.pool)).collect();
        pools.sort();
        pools.dedup();
        pools
    }
}

pub(crate) fn start(context: &Context) {
    let slices = context.informers.of::<ResourceSlice>();
    let claims = context.informers.of::<ResourceClaim>();
    let this = Eviction {
        client: context.client.clone(),
        recorder: context.recorder(NAME),
        pods: context.informers.of(),
        claims_of_pool: claims.index(),
        claims,
        slices_of_pool: slices.index(),
        slices,
        marked: Arc::default(),
    };
    let queue = Queue::new();
    this.watch(&queue);
    crate::harness::start(context, NAME, WORKERS, queue, this);
}

#[derive(Clone)]
struct Eviction {
    client: Client,
    recorder: Recorder,
    pods: Informer<Pod>,
    claims: Informer<ResourceClaim>,
    claims_of_pool: Index<ResourceClaim, ByPool>,
    slices: Informer<ResourceSlice>,
    slices_of_pool: Index<ResourceSlice, ByPool>,
    /// Pods that are to end, by uid, and since when that is known.
    marked: Arc<Mutex<HashMap<String, Timestamp>>>,
}

impl Eviction {
    fn marked(&self) -> MutexGuard<'_, HashMap<String, Timestamp>> {
        self.marked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, queue: &Queue<Key>) {
        let (this, keys) = (self.clone(), queue.clone());
        self.slices.on_change(move |change| {
            let (old, new) = (change.old(), change.object());
            let was = old.map(|slice| plan::evicting(slice)).unwrap_or_default();
            let same = !matches!(change, Change::Deleted(_)) && was == plan::evicting(new);
            // Generations decide which slices count.
            let generation = |slice: &ResourceSlice| slice.spec.pool.generation;
            if same && old.is_some_and(|old| generation(old) == generation(new)) {
                return;
            }
            let pool = plan::pool(&new.spec.driver, &new.spec.pool.name);
            let claims = this.claims_of_pool.get(&pool);
            claims.iter().for_each(|claim| plan::consumers(claim).for_each(|key| keys.add(key)));
        });
        let keys = queue.clone();
        self.claims.on_change(move |change| {
            for claim in [Some(change.object()), change.old()].into_iter().flatten() {
                plan::consumers(claim).for_each(|key| keys.add(key));
            }
        });
        let (this, keys) = (self.clone(), queue.clone());
        self.pods.on_change(move |change| {
            let pod = change.object();
            if matches!(change, Change::Deleted(_)) {
                this.marked().remove(uid(&pod.metadata));
            } else if plan::has_claims(pod) {
                keys.add(key(&**pod));
            }
        });
    }

    /// When the pod is to end.
    fn due(&self, pod: &Pod, since: Timestamp) -> Option<Timestamp> {
        let claim = |name: &str| self.claims.get(namespace(&pod.metadata), name);
        let slices = |pool: &str| self.slices_of_pool.get(pool);
        plan::due(pod, claim, slices, since)
    }

    async fn evict(&self, pod: &Pod) -> Result<(), Error> {
        let message = "Marking for deletion";
        let about = reference(pod);
        self.recorder.event(&about, EventType::Normal, "DeviceTaintManagerEviction", message);
        let (space, own) = key(pod);
        let condition = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [{
            "type": "DisruptionTarget", "status": "True",
            "reason": "DeletionByDeviceTaintManager",
            "message": "Device Taint manager: deleting due to NoExecute taint",
            "lastTransitionTime": now(), "observedGeneration": pod.metadata.generation}]}});
        let patch = Patch::Strategic(condition);
        self.client.patch_status::<Pod>(&space, &own, &patch).await?;
        let params = DeleteParams { uid: pod.metadata.uid.clone(), ..DeleteParams::default() };
        self.client.delete::<Pod>(&space, &own, &params).await
    }
}

impl Reconciler for Eviction {
    type Key = Key;

    async fn synced(&self) {
        self.slices.synced().await;
        self.claims.synced().await;
        self.pods.synced().await;
    }

    async fn reconcile(&self, (space, own): Key) -> Result<Action, Error> {
        let Some(pod) = self.pods.get(&space, &own) else { return Ok(Action::Done) };
        if pod.metadata.deletion_timestamp.is_some() || crate::pods::finished(&pod) {
            self.marked().remove(uid(&pod.metadata));
            return Ok(Action::Done);
        }
        let now = Timestamp::now();
        let known = self.marked().get(uid(&pod.metadata)).copied();
        let Some(due) = self.due(&pod, known.unwrap_or(now)) else {
            if self.marked().remove(uid(&pod.metadata)).is_some() {
                let about = reference(&*pod);
                let reason = "DeviceTaintManagerEviction";
                self.recorder.event(&about, EventType::Normal, reason, "Cancelling deletion");
            }
            return Ok(Action::Done);
        };
        self.marked().entry(uid(&pod.metadata).to_owned()).or_insert(now);
        let left = Duration::try_from(due.duration_since(now)).unwrap_or_default();
        if !left.is_zero() {
            return Ok(Action::After(left));
        }
        match self.evict(&pod).await {
            // Gone, or another pod has its name by now.
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            other => other?,
        }
        self.marked().remove(uid(&pod.metadata));
        Ok(Action::Done)
    }
}
