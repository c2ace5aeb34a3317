//! Pod garbage collection: pods that nobody else will ever end.
//!
//! Watches Pods and Nodes: pods bound to a node that is gone, ending pods that were never
//! scheduled, ending pods on nodes declared out of service, and ended pods beyond a threshold.

mod plan;
#[cfg(test)]
mod tests;

use std::time::Duration;

use client::{
    Action, Change, Client, DeleteParams, Error, Index, IndexKey, Informer, Patch, Queue,
    run_workers,
};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::json;

use self::plan::Verdict;
use crate::Context;
use crate::harness::ByNode;
use crate::meta::{Key, key, now};
use crate::pods;

/// How long a node may be missing before its pods are given up: a node that registers anew keeps
/// them (upstream's quarantine).
const NODE_QUARANTINE: Duration = Duration::from_secs(40);
/// Pods ended at once.
const WORKERS: usize = 4;
/// Ended pods kept (upstream's --terminated-pod-gc-threshold).
const FINISHED_MAX: usize = 12_500;

/// Pods that ended, all under one value.
struct Finished;

impl Finished {
    const ALL: &str = "";
}

impl IndexKey<Pod> for Finished {
    fn values(pod: &Pod) -> Vec<String> {
        pods::finished(pod).then(|| Finished::ALL.to_owned()).into_iter().collect()
    }
}

pub(crate) fn start(context: &Context) {
    let pods = context.informers.of::<Pod>();
    let this = PodGc {
        client: context.client.clone(),
        by_node: pods.index(),
        finished: pods.index(),
        pods,
        nodes: context.informers.of(),
        queue: Queue::new(),
    };
    this.watch();
    context.tasks.required("pod garbage collector", this.run());
}

#[derive(Clone)]
struct PodGc {
    client: Client,
    pods: Informer<Pod>,
    by_node: Index<Pod, ByNode>,
    finished: Index<Pod, Finished>,
    nodes: Informer<Node>,
    queue: Queue<Key>,
}

impl PodGc {
    fn watch(&self) {
        let this = self.clone();
        self.pods.on_change(move |change| this.pod_changed(change));
        let this = self.clone();
        self.nodes.on_change(move |change| {
            let node = change.object();
            let delay = match change {
                Change::Deleted(_) => NODE_QUARANTINE,
                _ if plan::out_of_service(node) => Duration::ZERO,
                _ => return,
            };
            let name = node.metadata.name.as_deref().unwrap_or("");
            for pod in this.by_node.get(name) {
                this.queue.add_after(key(&*pod), delay);
            }
        });
    }

    fn pod_changed(&self, change: &Change<Pod>) {
        let pod = change.object();
        if matches!(change, Change::Deleted(_)) {
            return;
        }
        let node = pods::node(pod);
        if node.is_empty() {
            if pod.metadata.deletion_timestamp.is_some() {
                self.queue.add(key(&**pod));
            }
        } else if self.nodes.get("", node).is_none() {
            self.queue.add_after(key(&**pod), NODE_QUARANTINE);
        }
        if pods::finished(pod) {
            self.trim_finished();
        }
    }

    fn trim_finished(&self) {
        let mut finished = self.finished.get(Finished::ALL);
        let surplus = finished.len().saturating_sub(FINISHED_MAX);
        if surplus == 0 {
            return;
        }
        finished.sort_by_key(|p| p.metadata.creation_timestamp.as_ref().map(|t| t.0));
        finished.iter().take(surplus).for_each(|p| self.queue.add(key(&**p)));
    }

    async fn run(self) {
        self.nodes.synced().await;
        self.pods.synced().await;
        let queue = self.queue.clone();
        let work = move |key: Key| {
            let this = self.clone();
            async move { this.sync(key).await }
        };
        run_workers("podgc", queue, WORKERS, work).await;
    }

    async fn sync(&self, (namespace, name): Key) -> Result<Action, Error> {
        let Some(pod) = self.pods.get(&namespace, &name) else { return Ok(Action::Done) };
        let node = self.nodes.get("", pods::node(&pod));
        let too_many = self.finished.get(Finished::ALL).len() > FINISHED_MAX;
        let verdict = plan::verdict(&pod, node.as_deref(), too_many);
        if verdict == Verdict::Keep {
            return Ok(Action::Done);
        }
        if verdict == Verdict::Orphaned && !self.really_gone(pods::node(&pod)).await? {
            return Ok(Action::Done);
        }
        if let Some(patch) = plan::last_words(&pod, &verdict, &now()) {
            let patch = Patch::Strategic(json!({"status": patch}));
            match self.client.patch_status::<Pod>(&namespace, &name, &patch).await {
                Err(error) if error.is_not_found() => return Ok(Action::Done),
                other => drop(other?),
            }
        }
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            uid: pod.metadata.uid.clone(),
            ..DeleteParams::default()
        };
        match self.client.delete::<Pod>(&namespace, &name, &params).await {
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(Action::Done),
            other => other.map(|()| Action::Done),
        }
    }

    /// The view may be behind; a pod is not ended on hearsay.
    async fn really_gone(&self, node: &str) -> Result<bool, Error> {
        match self.client.get::<Node>("", node).await {
            Ok(_) => Ok(false),
            Err(error) if error.is_not_found() => Ok(true),
            Err(error) => Err(error),
        }
    }
}
