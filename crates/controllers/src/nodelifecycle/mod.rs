//! Node lifecycle: a node whose kubelet falls silent becomes unknown; conditions become taints.
//!
//! Watches Nodes, Leases and Pods. A sign of life is a changed lease or a changed heartbeat, dated
//! by when it was seen here, so that clocks that differ do no harm. One timer a node, no polling.
//! Not done: zones with many failures do not slow evictions down.

mod plan;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::run_workers;
use client::{Action, Change, Client, Error, EventType, Index, Informer, Patch, Queue, Recorder};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::json;
use tokio::time::Instant;

use crate::Context;
use crate::figures;
use crate::harness::ByNode;
use crate::meta::{name, namespace, now, reference};
use crate::pods;

/// Silence after which a node is given up (upstream's --node-monitor-grace-period).
const GRACE: Duration = Duration::from_secs(50);
/// Silence allowed to a node that never posted (upstream's --node-startup-grace-period).
const STARTUP_GRACE: Duration = Duration::from_secs(60);
/// Nodes reconciled at once.
const WORKERS: usize = 8;
/// Where kubelets keep their leases.
const LEASES: &str = "kube-node-lease";

pub(crate) fn start(context: &Context) {
    let pods = context.informers.of::<Pod>();
    let this = Lifecycle {
        client: context.client.clone(),
        recorder: context.recorder("node-controller"),
        nodes: context.informers.of(),
        leases: context.informers.of(),
        by_node: pods.index(),
        pods,
        alive: Arc::default(),
        queue: Queue::new(),
    };
    this.watch();
    context.tasks.required("node lifecycle controller", this.run());
}

#[derive(Clone)]
struct Lifecycle {
    client: Client,
    recorder: Recorder,
    nodes: Informer<Node>,
    leases: Informer<Lease>,
    pods: Informer<Pod>,
    by_node: Index<Pod, ByNode>,
    /// When each node last gave a sign of life.
    alive: Arc<Mutex<HashMap<String, Instant>>>,
    queue: Queue<String>,
}

impl Lifecycle {
    fn alive(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self) {
        let this = self.clone();
        self.leases.on_change(move |change| {
            let meta = &change.object().metadata;
            if namespace(meta) == LEASES && !matches!(change, Change::Deleted(_)) {
                this.alive().insert(name(meta).to_owned(), Instant::now());
            }
        });
        let this = self.clone();
        self.nodes.on_change(move |change| this.node_changed(change));
    }

    fn node_changed(&self, change: &Change<Node>) {
        let node = change.object();
        let name = name(&node.metadata).to_owned();
        let beat =
            |n: &Node| plan::condition(n, "Ready").and_then(|c| c.last_heartbeat_time.clone());
        match change {
            Change::Added(_) => {
                self.alive().entry(name.clone()).or_insert_with(Instant::now);
                self.say(node, "RegisteredNode", "Registered Node", "in Controller");
            }
            Change::Updated { old, new } => {
                if beat(old) != beat(new) {
                    self.alive().insert(name.clone(), Instant::now());
                }
            }
            Change::Deleted(_) => {
                self.alive().remove(&name);
                self.say(node, "RemovingNode", "Removing Node", "from Controller");
            }
        }
        self.queue.add(name);
    }

    fn say(&self, node: &Node, reason: &str, verb: &str, place: &str) {
        let name = name(&node.metadata);
        let message = format!("Node {name} event: {verb} {name} {place}");
        self.recorder.event(&reference(node), EventType::Normal, reason, message);
    }

    async fn run(self) {
        self.nodes.synced().await;
        self.leases.synced().await;
        self.pods.synced().await;
        let queue = self.queue.clone();
        let work = move |name: String| {
            let this = self.clone();
            async move { this.sync(&name).await }
        };
        run_workers("node lifecycle", queue, WORKERS, work).await;
    }

    async fn sync(&self, name: &str) -> Result<Action, Error> {
        let Some(node) = self.nodes.get("", name) else { return Ok(Action::Done) };
        let known = self.alive().get(name).copied();
        let silence = known.map_or(Duration::ZERO, |at| at.elapsed());
        let grace = if plan::readiness(&node).is_empty() { STARTUP_GRACE } else { GRACE };
        if silence >= grace
            && let Some(silent) = plan::silenced(&node, &now())
        {
            self.client.update_status(&silent).await?;
            let message = format!("Node {name} status is now: NodeNotReady");
            self.recorder.event(&reference(&*node), EventType::Normal, "NodeNotReady", message);
            // The change comes back and sets the taints.
            return Ok(Action::Done);
        }
        if let Some(taints) = plan::taints(&node, &now()) {
            let body = json!({
                "metadata": {"resourceVersion": node.metadata.resource_version},
                "spec": {"taints": taints},
            });
            self.client.patch::<Node>("", name, &Patch::Merge(body)).await?;
            if plan::evicts_newly(&node, &taints) {
                let [region, zone] = plan::region_and_zone(&node);
                figures::node_evicted(region, zone);
            }
        }
        if plan::readiness(&node) == "Unknown" {
            self.mark_pods(name).await?;
        }
        Ok(match silence < grace {
            true => Action::After(grace - silence),
            false => Action::Done,
        })
    }

    /// Pods of a node that nobody hears of are not ready: services must not lead there.
    async fn mark_pods(&self, node: &str) -> Result<(), Error> {
        for pod in self.by_node.get(node).iter().filter(|p| pods::ready(p)) {
            let body = json!({"status": {"conditions": [{
                "type": "Ready", "status": "False", "lastTransitionTime": now(),
            }]}});
            let (space, own) = (namespace(&pod.metadata), name(&pod.metadata));
            match self.client.patch_status::<Pod>(space, own, &Patch::Strategic(body)).await {
                Err(error) if error.is_not_found() => continue,
                other => drop(other?),
            }
            let message = "Node is not ready";
            self.recorder.event(&reference(&**pod), EventType::Warning, "NodeNotReady", message);
        }
        Ok(())
    }
}
