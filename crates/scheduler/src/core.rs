//! The scheduler's memory: cluster and queue together, changed by what the informers tell.

use std::sync::Arc;

use client::Change;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::filter::Filter;
use crate::pod::PodInfo;
use crate::queue::{Helps, Queue};

#[derive(Debug, Default)]
pub(crate) struct Core {
    pub(crate) cluster: Cluster,
    pub(crate) queue: Queue,
    pub(crate) scheduler_name: String,
}

const POD_GONE: &[Filter] = &[Filter::Ports, Filter::Resources, Filter::Spread, Filter::Interpod];
const POD_PLACED: &[Filter] = &[Filter::Spread, Filter::Interpod];

impl Core {
    pub(crate) fn pod_changed(&mut self, change: &Change<Pod>, now: Instant) {
        let pod = change.object();
        let uid = pod.metadata.uid.as_deref().unwrap_or("");
        if matches!(change, Change::Deleted(_)) {
            self.pod_gone(uid, now);
        } else if node_of(pod).is_some() {
            self.pod_on_node(pod, uid, now);
        } else {
            self.pod_without_node(pod, uid, now);
        }
    }

    fn pod_gone(&mut self, uid: &str, now: Instant) {
        self.queue.remove(uid);
        self.cluster.forget_nomination(uid);
        if self.cluster.remove_pod(uid) {
            self.queue.happened(&Helps::Only(POD_GONE), now);
        }
    }

    fn pod_on_node(&mut self, pod: &Arc<Pod>, uid: &str, now: Instant) {
        self.queue.remove(uid);
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) {
            return self.pod_gone(uid, now);
        }
        let node = node_of(pod).unwrap_or("");
        let known = self.cluster.placed_on(uid) == Some(node);
        let counted = self.cluster.nodes.get(node).and_then(|info| info.pods.get(uid));
        if known && counted.is_some_and(|info| counts_alike(&info.pod, pod)) {
            return;
        }
        self.cluster.place(node, Arc::new(PodInfo::new(pod.clone())));
        let helps = if known { POD_GONE } else { POD_PLACED };
        self.queue.happened(&Helps::Only(helps), now);
    }

    fn pod_without_node(&mut self, pod: &Arc<Pod>, uid: &str, now: Instant) {
        let spec = pod.spec.as_ref();
        let ours = spec.and_then(|s| s.scheduler_name.as_deref()).unwrap_or("default-scheduler")
            == self.scheduler_name;
        let gated = spec.is_some_and(|s| s.scheduling_gates.iter().flatten().next().is_some());
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        let over = pod.metadata.deletion_timestamp.is_some()
            || matches!(phase, Some("Succeeded" | "Failed"));
        if !ours || gated || over {
            self.queue.remove(uid);
            return self.cluster.forget_nomination(uid);
        }
        if self.cluster.placed_on(uid).is_some() {
            return;
        }
        let info = Arc::new(PodInfo::new(pod.clone()));
        let nominated = pod.status.as_ref().and_then(|s| s.nominated_node_name.as_deref());
        if let Some(node) = nominated.filter(|n| !n.is_empty()) {
            self.cluster.nominate(node, info.clone());
        }
        self.queue.put(info, now);
    }

    pub(crate) fn node_changed(&mut self, change: &Change<Node>, now: Instant) {
        match change {
            Change::Deleted(node) => {
                self.cluster.remove_node(node.metadata.name.as_deref().unwrap_or(""));
            }
            Change::Added(node) => {
                self.cluster.set_node(node.clone());
                self.queue.happened(&Helps::All, now);
            }
            Change::Updated { old, new } => {
                self.cluster.set_node(new.clone());
                for helps in node_helps(old, new) {
                    self.queue.happened(&helps, now);
                }
            }
        }
    }

    pub(crate) fn namespace_changed(&mut self, change: &Change<Namespace>) {
        let namespace = change.object();
        let name = namespace.metadata.name.as_deref().unwrap_or("");
        let gone = matches!(change, Change::Deleted(_));
        let labels = namespace.metadata.labels.clone().unwrap_or_default();
        self.cluster.set_namespace(name, (!gone).then_some(labels));
    }
}

pub(crate) fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).filter(|n| !n.is_empty())
}

/// Whether two states of a placed pod weigh the same.
fn counts_alike(old: &Pod, new: &Pod) -> bool {
    old.spec.as_ref().map(|s| &s.containers) == new.spec.as_ref().map(|s| &s.containers)
        && old.metadata.labels == new.metadata.labels
        && old.metadata.deletion_timestamp == new.metadata.deletion_timestamp
}

/// Which refusals a node's change may lift; heartbeats lift none.
fn node_helps(old: &Node, new: &Node) -> Vec<Helps> {
    let mut helps = Vec::new();
    let allocatable = |n: &Node| n.status.as_ref().and_then(|s| s.allocatable.clone());
    if allocatable(old) != allocatable(new) {
        helps.push(Helps::Only(&[Filter::Resources]));
    }
    if old.metadata.labels != new.metadata.labels {
        helps.push(Helps::Only(&[Filter::NodeAffinity, Filter::Spread, Filter::Interpod]));
    }
    if old.spec != new.spec {
        helps.push(Helps::Only(&[Filter::Taints, Filter::Unschedulable, Filter::Spread]));
    }
    helps
}
