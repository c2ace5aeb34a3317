//! Taint eviction: ends pods on nodes with `NoExecute` taints when their tolerations run out.
//!
//! Watches Nodes and Pods; each pod concerned has one timer.

mod plan;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use client::{
    Action, Change, Client, DeleteParams, Error, EventType, Index, Informer, Patch, Queue,
};
use client::{Recorder, run_workers};
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use serde_json::json;
use tokio::time::Instant;

use self::plan::Stay;
use crate::Context;
use crate::harness::ByNode;
use crate::meta::{Key, key, now, reference, uid};
use crate::pods;

/// Pods ended at once (upstream's number of workers).
const WORKERS: usize = 8;

pub(crate) fn start(context: &Context) {
    let pods = context.informers.of::<Pod>();
    let this = Eviction {
        client: context.client.clone(),
        recorder: context.recorder("taint-eviction-controller"),
        nodes: context.informers.of(),
        by_node: pods.index(),
        pods,
        since: Arc::default(),
        queue: Queue::new(),
    };
    this.watch();
    context.tasks.required("taint eviction controller", this.run());
}

#[derive(Clone)]
struct Eviction {
    client: Client,
    recorder: Recorder,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    by_node: Index<Pod, ByNode>,
    /// When each pod, by uid, was first seen to be limited.
    since: Arc<Mutex<HashMap<String, Instant>>>,
    queue: Queue<Key>,
}

fn evicting(node: &Node) -> Vec<Taint> {
    let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    taints.filter(|t| t.effect == "NoExecute").cloned().collect()
}

impl Eviction {
    fn since(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self) {
        let this = self.clone();
        self.nodes.on_change(move |change| {
            let node = change.object();
            let before = change.old().map(|n| evicting(n)).unwrap_or_default();
            if matches!(change, Change::Deleted(_)) || before == evicting(node) {
                return;
            }
            let name = node.metadata.name.as_deref().unwrap_or("");
            this.by_node.get(name).iter().for_each(|p| this.queue.add(key(&**p)));
        });
        let this = self.clone();
        self.pods.on_change(move |change| {
            let pod = change.object();
            if matches!(change, Change::Deleted(_)) {
                this.since().remove(uid(&pod.metadata));
                return;
            }
            let spec =
                |p: &Pod| p.spec.as_ref().map(|s| (s.node_name.clone(), s.tolerations.clone()));
            if !pods::node(pod).is_empty() && change.old().and_then(|p| spec(p)) != spec(pod) {
                this.queue.add(key(&**pod));
            }
        });
    }

    async fn run(self) {
        self.nodes.synced().await;
        self.pods.synced().await;
        let queue = self.queue.clone();
        let work = move |key: Key| {
            let this = self.clone();
            async move { this.sync(key).await }
        };
        run_workers("taint eviction", queue, WORKERS, work).await;
    }

    async fn sync(&self, (namespace, name): Key) -> Result<Action, Error> {
        let Some(pod) = self.pods.get(&namespace, &name) else { return Ok(Action::Done) };
        let taints = self.nodes.get("", pods::node(&pod)).map(|n| evicting(&n));
        let stay = plan::stay(&pod, &taints.unwrap_or_default());
        let uid = uid(&pod.metadata);
        let limit = match stay {
            _ if pod.metadata.deletion_timestamp.is_some() => return Ok(Action::Done),
            Stay::Forever => {
                if self.since().remove(uid).is_some() {
                    let message = format!("Cancelling deletion of Pod {namespace}/{name}");
                    self.say(&pod, message);
                }
                return Ok(Action::Done);
            }
            Stay::For(limit) => limit,
        };
        let stayed = self.since().entry(uid.to_owned()).or_insert_with(Instant::now).elapsed();
        if stayed < limit {
            return Ok(Action::After(limit - stayed));
        }
        self.evict(&pod, &namespace, &name).await
    }

    fn say(&self, pod: &Pod, message: String) {
        let about = reference(pod);
        self.recorder.event(&about, EventType::Normal, "TaintManagerEviction", message);
    }

    async fn evict(&self, pod: &Pod, namespace: &str, name: &str) -> Result<Action, Error> {
        self.say(pod, format!("Marking for deletion Pod {namespace}/{name}"));
        let body = json!({"status": {"conditions": [{
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
            "lastTransitionTime": now(),
        }]}});
        match self.client.patch_status::<Pod>(namespace, name, &Patch::Strategic(body)).await {
            Err(error) if error.is_not_found() => return Ok(Action::Done),
            other => drop(other?),
        }
        let params = DeleteParams { uid: pod.metadata.uid.clone(), ..DeleteParams::default() };
        match self.client.delete::<Pod>(namespace, name, &params).await {
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(Action::Done),
            other => other.map(|()| Action::Done),
        }
    }
}
