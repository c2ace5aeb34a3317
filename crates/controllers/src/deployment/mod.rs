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

use std::sync::Arc;

use client::{
    Action, Change, Client, DeleteParams, Error, EventType, Informer, Patch, Queue, Recorder,
    run_workers,
};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::Context;
use crate::meta::{
    Key, controller, controller_uids, key, managed_by, matches, may_adopt, name, namespace, now,
    reference, selector, uid,
};
use crate::pods;

/// Deployments reconciled at once (upstream's --concurrent-deployment-syncs).
const WORKERS: usize = 5;

const BY_CONTROLLER: &str = "controller";

pub(crate) fn start(context: &Context) {
    let this = Deployments {
        client: context.client.clone(),
        recorder: context.recorder("deployment-controller"),
        deployments: context.informers.of(),
        sets: context.informers.of(),
        pods: context.informers.of(),
        queue: Queue::new(),
    };
    this.watch();
    context.tasks.required("deployment controller", this.run());
}

#[derive(Clone)]
struct Deployments {
    client: Client,
    recorder: Recorder,
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    queue: Queue<Key>,
}

impl Deployments {
    fn watch(&self) {
        self.sets.add_index(BY_CONTROLLER, |set| controller_uids(&set.metadata));
        self.pods.add_index(BY_CONTROLLER, |pod| controller_uids(&pod.metadata));
        let this = self.clone();
        self.deployments.on_change(move |change| this.queue.add(key(&**change.object())));
        let this = self.clone();
        self.sets.on_change(move |change| {
            for set in [Some(change.object()), change.old()].into_iter().flatten() {
                this.set_changed(set);
            }
        });
        let this = self.clone();
        self.pods.on_change(move |change| this.pod_changed(change));
    }

    fn set_changed(&self, set: &ReplicaSet) {
        let namespace = namespace(&set.metadata);
        match controller(&set.metadata) {
            Some(owner) if owner.kind == "Deployment" => {
                self.queue.add((namespace.to_owned(), owner.name.clone()));
            }
            Some(_) => {}
            None => {
                let all = self.deployments.list_namespace(namespace);
                all.iter().filter(|d| selects(d, set)).for_each(|d| self.queue.add(key(&**d)));
            }
        }
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

    async fn run(self) {
        self.deployments.synced().await;
        self.sets.synced().await;
        self.pods.synced().await;
        let queue = self.queue.clone();
        let work = move |key: Key| {
            let this = self.clone();
            async move { this.sync(key).await }
        };
        run_workers("deployment", queue, WORKERS, work).await;
    }

    async fn sync(&self, key: Key) -> Result<Action, Error> {
        let Some(deployment) = self.deployments.get(&key.0, &key.1) else {
            return Ok(Action::Done);
        };
        let everything = deployment.spec.as_ref().is_some_and(|s| selector(&s.selector).is_empty());
        if everything {
            let message =
                "This deployment is selecting all pods. A non-empty selector is required.";
            let about = reference(&*deployment);
            self.recorder.event(&about, EventType::Warning, "SelectingAll", message);
            return Ok(Action::Done);
        }
        let sets = self.claim(&deployment).await?;
        let running = |set: &ReplicaSet| {
            let pods = self.pods.by_index(BY_CONTROLLER, uid(&set.metadata));
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

    /// The sets this Deployment manages; takes in those that nobody does, lets go of strays.
    async fn claim(&self, deployment: &Deployment) -> Result<Vec<Arc<ReplicaSet>>, Error> {
        let mut owned = Vec::new();
        for set in self.sets.by_index(BY_CONTROLLER, uid(&deployment.metadata)) {
            if selects(deployment, &set) {
                owned.push(set);
            } else {
                let stray = json!([{"$patch": "delete", "uid": deployment.metadata.uid}]);
                self.set_owners(&set, stray).await?;
            }
        }
        if deployment.metadata.deletion_timestamp.is_none() {
            let all = self.sets.list_namespace(namespace(&deployment.metadata));
            let free = |s: &&Arc<ReplicaSet>| {
                controller(&s.metadata).is_none()
                    && s.metadata.deletion_timestamp.is_none()
                    && selects(deployment, s)
            };
            let free: Vec<_> = all.iter().filter(free).collect();
            if free.is_empty() || !may_adopt(&self.client, deployment).await? {
                return Ok(owned);
            }
            for set in free {
                self.set_owners(set, json!([managed_by(deployment)])).await?;
            }
        }
        Ok(owned)
    }

    async fn set_owners(&self, set: &ReplicaSet, owners: serde_json::Value) -> Result<(), Error> {
        let body = json!({"metadata": {"uid": set.metadata.uid, "ownerReferences": owners}});
        let (namespace, name) = (namespace(&set.metadata), name(&set.metadata));
        let patch = Patch::Strategic(body);
        self.client.patch::<ReplicaSet>(namespace, name, &patch).await.map(drop)
    }

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
