//! Deployment: ReplicaSets of successive templates, rolled over within bounds.
//!
//! Watches Deployments, ReplicaSets, and Pods' ends (Recreate waits for them). Each pass takes at
//! most one step; the step's own change brings the next pass.

mod history;
mod plan;
mod rollout;
mod status;
#[cfg(test)]
mod tests;

use client::{
    Action, Change, Client, DeleteParams, Error, EventType, Index, Informer, Patch, Queue, Recorder,
};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::Context;
use crate::harness::{
    ByController, Candidates, Orphans, Reconciler, claim, enqueue, selected_by,
    start as start_reconciler, watch_dependents,
};
use crate::meta::{Key, controller, matches, name, namespace, now, reference, selector, uid};
use crate::pods;

/// Deployments reconciled at once (upstream's --concurrent-deployment-syncs).
const WORKERS: usize = 5;

pub(crate) fn start(context: &Context) {
    let sets = context.informers.of::<ReplicaSet>();
    let pods = context.informers.of::<Pod>();
    let this = Deployments {
        client: context.client.clone(),
        recorder: context.recorder("deployment-controller"),
        deployments: context.informers.of(),
        sets_by_controller: sets.index(),
        orphan_sets: sets.index(),
        pods_by_controller: pods.index(),
        sets,
        pods,
        queue: Queue::new(),
    };
    this.watch();
    start_reconciler(context, "deployment-controller", WORKERS, this.queue.clone(), this);
}

#[derive(Clone)]
struct Deployments {
    client: Client,
    recorder: Recorder,
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    sets_by_controller: Index<ReplicaSet, ByController>,
    orphan_sets: Index<ReplicaSet, Orphans>,
    pods_by_controller: Index<Pod, ByController>,
    queue: Queue<Key>,
}

impl Deployments {
    fn watch(&self) {
        enqueue(&self.deployments, &self.queue);
        watch_dependents(&self.sets, &self.deployments, &self.queue, selects);
        let this = self.clone();
        self.pods.on_change(move |change| this.pod_changed(change));
    }

    /// Recreate goes on when the last old pod is gone.
    fn pod_changed(&self, change: &Change<Pod>) {
        let pod = change.object();
        let ended = matches!(change, Change::Deleted(_)) || pods::finished(pod);
        let owner = controller(&pod.metadata).filter(|o| ended && o.kind == "ReplicaSet");
        let namespace = namespace(&pod.metadata);
        let set = owner.and_then(|owner| self.sets.get(namespace, &owner.name));
        if let Some(deployment) = set.as_deref().and_then(|s| controller(&s.metadata)) {
            self.queue.add((namespace.to_owned(), deployment.name.clone()));
        }
    }
}

impl Reconciler for Deployments {
    type Key = Key;

    async fn synced(&self) {
        self.deployments.synced().await;
        self.sets.synced().await;
        self.pods.synced().await;
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let Some(deployment) = self.deployments.get(&key.0, &key.1) else {
            return Ok(Action::Done);
        };
        let Some(spec) = &deployment.spec else { return Ok(Action::Done) };
        if selector(&spec.selector).is_empty() {
            let message =
                "This deployment is selecting all pods. A non-empty selector is required.";
            let about = reference(&*deployment);
            self.recorder.event(&about, EventType::Warning, "SelectingAll", message);
            return Ok(Action::Done);
        }
        let mut sets = self.sets_by_controller.get(uid(&deployment.metadata));
        sets.extend(self.orphan_sets.get(&key.0));
        let fits = selected_by(selector(&spec.selector));
        let candidates = Candidates::sort(&*deployment, fits, sets, |_| true);
        let Some(sets) = claim(&self.client, &*deployment, candidates).await? else {
            return Ok(Action::Done);
        };
        let running = |set: &ReplicaSet| {
            let pods = self.pods_by_controller.get(uid(&set.metadata));
            pods.iter().any(|pod| !pods::finished(pod))
        };
        let plan = plan::plan(&plan::State {
            deployment: &deployment,
            sets: &sets,
            running: &running,
            now: &now(),
        });
        self.apply(&deployment, plan).await
    }
}

impl Deployments {
    async fn apply(&self, deployment: &Deployment, plan: plan::Plan) -> Result<Action, Error> {
        let (space, own) = (namespace(&deployment.metadata), name(&deployment.metadata));
        if let Some(set) = &plan.create {
            self.create(deployment, set).await?;
        }
        for (set, event) in &plan.update {
            self.client.update(set).await?;
            if let Some(message) = event {
                self.say(deployment, EventType::Normal, "ScalingReplicaSet", message.clone());
            }
        }
        for old in &plan.delete {
            match self.client.delete::<ReplicaSet>(space, old, &DeleteParams::default()).await {
                Err(error) if error.is_not_found() => {}
                other => other?,
            }
        }
        let mut current = deployment.clone();
        if let Some(revision) = &plan.revision {
            let body = json!({"metadata": {"annotations": {history::REVISION: revision}}});
            let patched = self.client.patch::<Deployment>(space, own, &Patch::Merge(body)).await?;
            // Only what was patched is new to us; any other change must still conflict.
            if patched.metadata.generation == current.metadata.generation {
                current.metadata = patched.metadata;
            }
        }
        if let Some(status) = plan.status {
            current.status = Some(status);
            match self.client.update_status(&current).await {
                Err(error) if error.is_not_found() => {}
                other => drop(other?),
            }
        }
        Ok(plan.recheck.map_or(Action::Done, Action::After))
    }

    async fn create(&self, deployment: &Deployment, set: &ReplicaSet) -> Result<(), Error> {
        let (space, own) = (namespace(&set.metadata), name(&set.metadata));
        match self.client.create(space, set).await {
            Ok(_) => {
                let replicas = rollout::size(set);
                if replicas > 0 {
                    let message = format!("Scaled up replica set {own} from 0 to {replicas}");
                    self.say(deployment, EventType::Normal, "ScalingReplicaSet", message);
                }
                Ok(())
            }
            Err(error) if error.is_already_exists() => self.collided(deployment, set, error).await,
            Err(error) => {
                let message = format!("Failed to create new replica set \"{own}\": {error}");
                self.creation_failed(deployment, &message).await?;
                self.say(deployment, EventType::Warning, "ReplicaSetCreateError", message);
                Err(error)
            }
        }
    }

    /// The name is taken: by our own set that is not in view yet, or by another template.
    async fn collided(
        &self,
        deployment: &Deployment,
        set: &ReplicaSet,
        error: Error,
    ) -> Result<(), Error> {
        let (space, own) = (namespace(&set.metadata), name(&set.metadata));
        let there: ReplicaSet = self.client.get(space, own).await?;
        if history::is_ours(deployment, &there) {
            return Ok(());
        }
        let mut bumped = deployment.clone();
        let status = bumped.status.get_or_insert_default();
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        self.client.update_status(&bumped).await?;
        Err(error)
    }

    async fn creation_failed(&self, deployment: &Deployment, message: &str) -> Result<(), Error> {
        if status::deadline(deployment).is_none() {
            return Ok(());
        }
        let mut failed = deployment.clone();
        let status = failed.status.get_or_insert_default();
        let reason = "ReplicaSetCreateError";
        status::set_progress(status, "False", reason, message.to_owned(), &now());
        if failed != *deployment {
            self.client.update_status(&failed).await?;
        }
        Ok(())
    }

    fn say(&self, deployment: &Deployment, kind: EventType, reason: &str, message: String) {
        self.recorder.event(&reference(deployment), kind, reason, message);
    }
}

fn selects(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let spec = deployment.spec.as_ref();
    spec.is_some_and(|s| matches(&selector(&s.selector), set.metadata.labels.as_ref()))
}
