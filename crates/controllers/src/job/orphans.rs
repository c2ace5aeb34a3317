//! Pods with the tracking finalizer that no Job counts: they lose it, so that they can end.

use client::{Action, Client, Error, Index, Informer, Patch, Queue};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::facts::has_finalizer;
use super::{FINALIZER, is_foreign};
use crate::Context;
use crate::harness::{ByController, Reconciler};
use crate::jobs;
use crate::meta::{Key, controller, key, name, namespace, uid};

/// Pods patched at once.
const WORKERS: usize = 5;

pub(super) fn start(context: &Context) {
    let (jobs, pods) = (context.informers.of::<Job>(), context.informers.of::<Pod>());
    let queue = Queue::new();
    let this = OrphanPods { client: context.client.clone(), jobs, pods };
    this.watch(&queue);
    crate::harness::start(context, "job orphan pods", WORKERS, queue, this);
}

#[derive(Clone)]
struct OrphanPods {
    client: Client,
    jobs: Informer<Job>,
    pods: Informer<Pod>,
}

impl OrphanPods {
    fn watch(&self, queue: &Queue<Key>) {
        let (this, queue_of_pods) = (self.clone(), queue.clone());
        self.pods.on_change(move |change| {
            let pod = change.object();
            if has_finalizer(pod) && this.may_be_orphan(pod) {
                queue_of_pods.add(key(&**pod));
            }
        });
        let by_controller: Index<Pod, ByController> = self.pods.index();
        let queue = queue.clone();
        self.jobs.on_change(move |change| {
            let job = change.object();
            if jobs::finished(job) || matches!(change, client::Change::Deleted(_)) {
                let pods = by_controller.get(uid(&job.metadata));
                pods.iter().filter(|p| has_finalizer(p)).for_each(|p| queue.add(key(&**p)));
            }
        });
    }

    fn may_be_orphan(&self, pod: &Pod) -> bool {
        controller(&pod.metadata).is_none()
            || (pod.metadata.deletion_timestamp.is_some() && self.is_orphan(pod))
    }

    /// Whether no Job will ever take the finalizer away.
    fn is_orphan(&self, pod: &Pod) -> bool {
        let Some(owner) = controller(&pod.metadata) else { return true };
        if owner.kind != "Job" || owner.api_version != "batch/v1" {
            return false;
        }
        let job = self.jobs.get(namespace(&pod.metadata), &owner.name);
        let job = job.filter(|job| uid(&job.metadata) == owner.uid);
        job.is_none_or(|job| !is_foreign(&job) && jobs::finished(&job))
    }
}

impl Reconciler for OrphanPods {
    type Key = Key;

    async fn synced(&self) {
        self.jobs.synced().await;
        self.pods.synced().await;
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let Some(pod) = self.pods.get(&key.0, &key.1) else { return Ok(Action::Done) };
        if !has_finalizer(&pod) || !self.is_orphan(&pod) {
            return Ok(Action::Done);
        }
        match remove_finalizer(&self.client, &pod).await {
            Err(error) if error.is_not_found() => Ok(Action::Done),
            other => other.map(|_| Action::Done),
        }
    }
}

pub(super) async fn remove_finalizer(client: &Client, pod: &Pod) -> Result<Pod, Error> {
    let body = json!({"metadata": {"uid": pod.metadata.uid,
        "$deleteFromPrimitiveList/finalizers": [FINALIZER]}});
    let (namespace, name) = (namespace(&pod.metadata), name(&pod.metadata));
    client.patch::<Pod>(namespace, name, &Patch::Strategic(body)).await
}
