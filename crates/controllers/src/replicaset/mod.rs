//! ReplicaSet: as many pods of a template as asked for.
//!
//! Watches ReplicaSets and Pods. Pods made or ended whose change is not in view yet are counted as
//! if it were, so that a slow cache never leads to too many or too few.

mod plan;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client::{Action, Change, Client, DeleteParams, Error, EventType, Informer, Patch, Queue};
use client::{Recorder, run_workers};
use futures::future::join_all;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tokio::time::Instant;

use crate::Context;
use crate::meta::{
    Key, controller, controller_uids, key, managed_by, matches, may_adopt, name, namespace, now,
    reference, selector, uid,
};
use crate::pods::from_template;

/// Sets reconciled at once (upstream's --concurrent-replicaset-syncs).
const WORKERS: usize = 5;
/// After this long an unseen change is no longer counted on: it was seen by nobody and never will.
const UNSEEN_MAX: Duration = Duration::from_secs(300);

const BY_CONTROLLER: &str = "controller";
const BY_ORPHAN_NAMESPACE: &str = "orphan-namespace";

pub(crate) fn start(context: &Context) {
    let this = ReplicaSets {
        client: context.client.clone(),
        recorder: context.recorder("replicaset-controller"),
        sets: context.informers.of(),
        pods: context.informers.of(),
        queue: Queue::new(),
        unseen: Arc::default(),
    };
    this.watch();
    context.tasks.required("replicaset controller", this.run());
}

#[derive(Clone)]
struct ReplicaSets {
    client: Client,
    recorder: Recorder,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    queue: Queue<Key>,
    unseen: Arc<Mutex<HashMap<Key, Unseen>>>,
}

/// Changes made that the pod informer has not shown, by pod uid.
#[derive(Default)]
struct Unseen {
    made: HashMap<String, Instant>,
    ended: HashMap<String, Instant>,
}

impl ReplicaSets {
    fn watch(&self) {
        self.pods.add_index(BY_CONTROLLER, |pod| controller_uids(&pod.metadata));
        self.pods.add_index(BY_ORPHAN_NAMESPACE, |pod| match controller(&pod.metadata) {
            Some(_) => Vec::new(),
            None => vec![namespace(&pod.metadata).to_owned()],
        });
        self.sets.add_index(BY_CONTROLLER, |set| controller_uids(&set.metadata));
        let this = self.clone();
        self.sets.on_change(move |change| this.queue.add(key(&**change.object())));
        let this = self.clone();
        self.pods.on_change(move |change| this.pod_changed(change));
    }

    async fn run(self) {
        self.sets.synced().await;
        self.pods.synced().await;
        let queue = self.queue.clone();
        let work = move |key: Key| {
            let this = self.clone();
            async move { this.sync(key).await }
        };
        run_workers("replicaset", queue, WORKERS, work).await;
    }

    fn pod_changed(&self, change: &Change<Pod>) {
        for pod in [Some(change.object()), change.old()].into_iter().flatten() {
            match controller(&pod.metadata) {
                Some(owner) if owner.kind == "ReplicaSet" => {
                    let key = (namespace(&pod.metadata).to_owned(), owner.name.clone());
                    self.seen(&key, change);
                    self.queue.add(key);
                }
                Some(_) => {}
                None => self.offer(pod),
            }
        }
    }

    /// A pod that nobody manages may be one of ours.
    fn offer(&self, pod: &Pod) {
        for set in self.sets.list_namespace(namespace(&pod.metadata)) {
            let fits = set
                .spec
                .as_ref()
                .is_some_and(|s| matches(&selector(&s.selector), pod.metadata.labels.as_ref()));
            if fits {
                self.queue.add(key(&*set));
            }
        }
    }

    fn seen(&self, key: &Key, change: &Change<Pod>) {
        let pod = change.object();
        self.with_unseen(key, |unseen| {
            unseen.made.remove(uid(&pod.metadata));
            let ending = pod.metadata.deletion_timestamp.is_some();
            if ending || matches!(change, Change::Deleted(_)) {
                unseen.ended.remove(uid(&pod.metadata));
            }
        });
    }

    fn with_unseen<T>(&self, key: &Key, with: impl FnOnce(&mut Unseen) -> T) -> T {
        let mut all = self.unseen.lock().unwrap_or_else(PoisonError::into_inner);
        let unseen = all.entry(key.clone()).or_default();
        let result = with(unseen);
        if unseen.made.is_empty() && unseen.ended.is_empty() {
            all.remove(key);
        }
        result
    }

    async fn sync(&self, key: Key) -> Result<Action, Error> {
        let Some(set) = self.sets.get(&key.0, &key.1) else {
            self.unseen.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            return Ok(Action::Done);
        };
        let mut pods = self.pods.by_index(BY_CONTROLLER, uid(&set.metadata));
        pods.extend(self.pods.by_index(BY_ORPHAN_NAMESPACE, &key.0));
        let (unseen, doomed) = self.expected(&key);
        let related = self.related(&set);
        let plan = plan::plan(&plan::State {
            set: &set,
            pods: &pods,
            related: &related,
            unseen,
            doomed: &doomed,
        });
        if !plan.adopt.is_empty() && !may_adopt(&self.client, &*set).await? {
            // It ends, or is another: the view will say so.
            return Ok(Action::Done);
        }
        self.claim(&set, &plan).await?;
        let outcome = self.apply(&key, &set, &plan).await;
        let failure = outcome.as_ref().err().map(|e| {
            let reason = if plan.create > 0 { "FailedCreate" } else { "FailedDelete" };
            (reason, e.to_string())
        });
        let recheck = self.write_status(&set, &plan.owned, failure).await?;
        outcome?;
        Ok(recheck.map_or(Action::Done, Action::After))
    }

    /// Pods made and not in view; pods ended that look untouched.
    fn expected(&self, key: &Key) -> (usize, HashSet<String>) {
        self.with_unseen(key, |unseen| {
            let fresh = |_: &String, at: &mut Instant| at.elapsed() < UNSEEN_MAX;
            unseen.made.retain(fresh);
            unseen.ended.retain(fresh);
            (unseen.made.len(), unseen.ended.keys().cloned().collect())
        })
    }

    fn related(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let pods_of = |uid: &str| self.pods.by_index(BY_CONTROLLER, uid);
        match controller(&set.metadata) {
            None => pods_of(uid(&set.metadata)),
            Some(owner) => {
                let siblings = self.sets.by_index(BY_CONTROLLER, &owner.uid);
                siblings.iter().flat_map(|s| pods_of(uid(&s.metadata))).collect()
            }
        }
    }

    async fn claim(&self, set: &ReplicaSet, plan: &plan::Plan) -> Result<(), Error> {
        for pod in &plan.adopt {
            let body = json!({"metadata": {
                "uid": pod.metadata.uid,
                "ownerReferences": [managed_by(set)],
            }});
            self.patch_pod(pod, body).await?;
        }
        for pod in &plan.release {
            let body = json!({"metadata": {
                "uid": pod.metadata.uid,
                "ownerReferences": [{"$patch": "delete", "uid": set.metadata.uid}],
            }});
            self.patch_pod(pod, body).await?;
        }
        Ok(())
    }

    async fn patch_pod(&self, pod: &Pod, body: serde_json::Value) -> Result<(), Error> {
        let (namespace, name) = (namespace(&pod.metadata), name(&pod.metadata));
        let done = self.client.patch::<Pod>(namespace, name, &Patch::Strategic(body)).await;
        match done {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }

    async fn apply(&self, key: &Key, set: &ReplicaSet, plan: &plan::Plan) -> Result<(), Error> {
        // Batches of 1, 2, 4, …: when creating fails, it fails for few.
        let (mut left, mut batch) = (plan.create, 1);
        while left > 0 {
            let size = batch.min(left);
            let made = join_all((0..size).map(|_| self.create(key, set))).await;
            made.into_iter().collect::<Result<(), Error>>()?;
            left -= size;
            batch *= 2;
        }
        let ended = join_all(plan.delete.iter().map(|pod| self.delete(key, set, pod))).await;
        ended.into_iter().collect()
    }

    async fn create(&self, key: &Key, set: &ReplicaSet) -> Result<(), Error> {
        let template = set.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default();
        let pod = from_template(&template, &key.0, &key.1, managed_by(set));
        match self.client.create(&key.0, &pod).await {
            Ok(made) => {
                self.with_unseen(key, |unseen| {
                    // Under the lock that `seen` takes: either it is in view, or it will be noted.
                    if self.pods.get(&key.0, name(&made.metadata)).is_none() {
                        unseen.made.insert(uid(&made.metadata).to_owned(), Instant::now());
                    }
                });
                let message = format!("Created pod: {}", name(&made.metadata));
                self.recorder.event(
                    &reference(set),
                    EventType::Normal,
                    "SuccessfulCreate",
                    message,
                );
                Ok(())
            }
            Err(error) => {
                let message = format!("Error creating: {error}");
                self.recorder.event(&reference(set), EventType::Warning, "FailedCreate", message);
                Err(error)
            }
        }
    }

    async fn delete(&self, key: &Key, set: &ReplicaSet, pod: &Pod) -> Result<(), Error> {
        let (name, uid) = (name(&pod.metadata), uid(&pod.metadata).to_owned());
        self.with_unseen(key, |unseen| unseen.ended.insert(uid.clone(), Instant::now()));
        let params = DeleteParams { uid: Some(uid.clone()), ..DeleteParams::default() };
        match self.client.delete::<Pod>(&key.0, name, &params).await {
            Ok(()) => {
                let message = format!("Deleted pod: {name}");
                self.recorder.event(
                    &reference(set),
                    EventType::Normal,
                    "SuccessfulDelete",
                    message,
                );
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => {
                self.with_unseen(key, |unseen| unseen.ended.remove(&uid));
                let message = format!("Error deleting: {error}");
                self.recorder.event(&reference(set), EventType::Warning, "FailedDelete", message);
                Err(error)
            }
        }
    }

    async fn write_status(
        &self,
        set: &ReplicaSet,
        owned: &[Arc<Pod>],
        failure: Option<(&'static str, String)>,
    ) -> Result<Option<Duration>, Error> {
        // Adopted pods count from when they carry the reference.
        let managed = |p: &&Arc<Pod>| controller(&p.metadata).is_some();
        let owned: Vec<Arc<Pod>> = owned.iter().filter(managed).cloned().collect();
        let (status, recheck) = plan::status(set, &owned, failure, &now());
        if !plan::same(set.status.as_ref(), &status) {
            let new = ReplicaSet { status: Some(status), ..set.clone() };
            match self.client.update_status(&new).await {
                Err(error) if error.is_not_found() => {}
                other => drop(other?),
            }
        }
        Ok(recheck.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs))
    }
}
