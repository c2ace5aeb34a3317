//! ReplicaSet and ReplicationController: as many pods of a template as asked for.
//!
//! Watches the owners and Pods. Creations and deletions that the informer does not show yet are counted,
//! so that a slow informer never leads to too many or too few pods.

mod owner;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use client::{Action, Client, Error, Index, Informer, Queue};
use futures::future::join_all;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};

use self::owner::ReplicaOwner;
use crate::Context;
use crate::harness::{
    ByController, Candidates, Orphans, PodControl, Reconciler, claim, enqueue, selected_by,
    write_status,
};
use crate::meta::{Key, controller, managed_by, matches, now, uid};
use crate::pods::{active, from_template};

/// Owners reconciled at once (upstream's --concurrent-replicaset-syncs and -rc-syncs).
const WORKERS: usize = 5;

pub(crate) fn start_sets(context: &Context) {
    start::<ReplicaSet>(context, "replicaset-controller");
}

pub(crate) fn start_controllers(context: &Context) {
    start::<ReplicationController>(context, "replication-controller");
}

fn start<O: ReplicaOwner>(context: &Context, component: &'static str) {
    let (owners, pods) = (context.informers.of::<O>(), context.informers.of::<Pod>());
    let queue = Queue::new();
    enqueue(&owners, &queue);
    crate::harness::watch_dependents(&pods, &owners, &queue, |owner: &O, pod: &Pod| {
        matches(&owner.selector(), pod.metadata.labels.as_ref())
    });
    let recorder = context.recorder(component);
    let this = Replicas {
        control: PodControl::new(context.client.clone(), recorder, pods.clone()),
        client: context.client.clone(),
        by_controller: pods.index(),
        orphans: pods.index(),
        siblings: owners.index(),
        owners,
        pods,
    };
    crate::harness::start(context, component, WORKERS, queue, this);
}

#[derive(Clone)]
struct Replicas<O> {
    client: Client,
    control: PodControl,
    owners: Informer<O>,
    pods: Informer<Pod>,
    by_controller: Index<Pod, ByController>,
    orphans: Index<Pod, Orphans>,
    siblings: Index<O, ByController>,
}

impl<O: ReplicaOwner> Reconciler for Replicas<O> {
    type Key = Key;

    async fn synced(&self) {
        self.owners.synced().await;
        self.pods.synced().await;
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let Some(owner) = self.owners.get(&key.0, &key.1) else {
            self.control.expectations.forget(&key);
            return Ok(Action::Done);
        };
        let pending = self.control.expectations.pending(&key);
        let mut pods = self.by_controller.get(uid(owner.metadata()));
        pods.extend(self.orphans.get(&key.0));
        let candidates = Candidates::sort(&*owner, selected_by(owner.selector()), pods, active);
        let Some(owned) = claim(&self.client, &*owner, candidates).await? else {
            return Ok(Action::Done);
        };
        let related = self.related(&owner);
        let plan = plan::plan(&plan::State {
            owner: &*owner,
            owned: &owned,
            related: &related,
            creations: pending.creations,
            deletions: &pending.deletions,
        });
        let outcome = self.apply(&key, &owner, &plan).await;
        let failure = outcome.as_ref().err().map(|e| {
            let reason = if plan.create > 0 { "FailedCreate" } else { "FailedDelete" };
            (reason, e.to_string())
        });
        let recheck = self.write_status(&owner, &owned, failure).await?;
        outcome?;
        Ok(recheck.map_or(Action::Done, Action::After))
    }
}

impl<O: ReplicaOwner> Replicas<O> {
    /// Pods of all owners with the same controller, this one's included: a Deployment's.
    fn related(&self, owner: &O) -> Vec<Arc<Pod>> {
        let pods_of = |uid: &str| self.by_controller.get(uid);
        match controller(owner.metadata()) {
            None => pods_of(uid(owner.metadata())),
            Some(above) => {
                let siblings = self.siblings.get(&above.uid);
                siblings.iter().flat_map(|s| pods_of(uid(s.metadata()))).collect()
            }
        }
    }

    async fn apply(&self, key: &Key, owner: &O, plan: &plan::Plan) -> Result<(), Error> {
        if plan.create > 0 {
            let pod = from_template(&owner.template(), &key.0, &key.1, managed_by(owner));
            let pods = vec![pod; plan.create];
            self.control.create_all(owner, key, &pods).await.1?;
        }
        let deletions = plan.delete.iter().map(|pod| self.control.delete(owner, key, pod));
        join_all(deletions).await.into_iter().collect()
    }

    async fn write_status(
        &self,
        owner: &O,
        owned: &[Arc<Pod>],
        failure: Option<(&'static str, String)>,
    ) -> Result<Option<Duration>, Error> {
        let old = owner.status();
        let (status, recheck) = plan::status(owner, owned, failure, &now());
        let new = owner.with_status(&status);
        write_status(&self.client, &new, Some(&old), Some(&status)).await?;
        Ok(recheck.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs))
    }
}

/// Uids of pods whose deletion the informer does not show.
type Deletions = HashSet<String>;
