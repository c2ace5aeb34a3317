//! The scheduler's picture of the cluster: nodes with what their pods take, kept by changes only.
//!
//! A pod that was given a node is counted there at once ("assumed"), before the server confirms;
//! what the server says later replaces it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;

use crate::matching::Labels;
use crate::pod::PodInfo;
use crate::resources::Resources;

#[derive(Debug, Default, Clone)]
pub(crate) struct Cluster {
    pub(crate) nodes: BTreeMap<String, NodeInfo>,
    /// Where each counted pod is.
    placed: HashMap<String, String>,
    /// Nodes that hold a pod with required anti-affinity.
    pub(crate) repelling: BTreeSet<String>,
    /// Nodes that hold a pod with any affinity that scoring looks at.
    pub(crate) attracting: BTreeSet<String>,
    namespaces: HashMap<String, Labels>,
    /// Pods for which room was made on a node, until they are placed.
    nominated: HashMap<String, (String, Arc<PodInfo>)>,
    /// Where the next search for feasible nodes begins.
    pub(crate) next_start: usize,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct NodeInfo {
    /// `None` while only its pods are known.
    pub(crate) node: Option<Arc<Node>>,
    pub(crate) allocatable: Resources,
    pub(crate) pods_max: usize,
    pub(crate) requested: Resources,
    pub(crate) estimated: Resources,
    pub(crate) pods: HashMap<String, Arc<PodInfo>>,
    /// How many pods of each controller.
    pub(crate) by_owner: HashMap<String, i64>,
}

impl NodeInfo {
    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        let labels = self.node.as_ref()?.metadata.labels.as_ref()?;
        labels.get(key).map(String::as_str)
    }

    pub(crate) fn add(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.estimated.add(&pod.estimate);
        if let Some(owner) = pod.owner() {
            *self.by_owner.entry(owner.to_owned()).or_insert(0) += 1;
        }
        self.pods.insert(pod.uid().to_owned(), pod);
    }

    pub(crate) fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let pod = self.pods.remove(uid)?;
        self.requested.subtract(&pod.requests);
        self.estimated.subtract(&pod.estimate);
        if let Some(count) = pod.owner().and_then(|owner| self.by_owner.get_mut(owner)) {
            *count -= 1;
        }
        self.by_owner.retain(|_, count| *count > 0);
        Some(pod)
    }
}

impl Cluster {
    pub(crate) fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let info = self.nodes.entry(name).or_default();
        let allocatable = node.status.as_ref().and_then(|s| s.allocatable.as_ref());
        info.allocatable = Resources::of(allocatable);
        let pods = allocatable.and_then(|a| a.get("pods"));
        let pods = pods.and_then(|q| api::quantity::Quantity::parse(&q.0).ok());
        info.pods_max = pods.map_or(0, |q| usize::try_from(q.value()).unwrap_or(0));
        info.node = Some(node);
    }

    pub(crate) fn remove_node(&mut self, name: &str) {
        if let Some(info) = self.nodes.get_mut(name) {
            info.node = None;
            if info.pods.is_empty() {
                self.nodes.remove(name);
            }
        }
    }

    /// A copy to try changes of one node's pods on; when nothing relates `pod` to other nodes, they
    /// are left out.
    pub(crate) fn trial(&self, pod: &PodInfo, node: &str) -> Cluster {
        let alone = pod.spread.is_empty()
            && pod.affinity.is_empty()
            && pod.anti_affinity.is_empty()
            && self.repelling.is_empty();
        if !alone {
            return self.clone();
        }
        let info = self.nodes.get(node).cloned().unwrap_or_default();
        let placed = info.pods.keys().map(|uid| (uid.clone(), node.to_owned())).collect();
        let nodes = BTreeMap::from([(node.to_owned(), info)]);
        Cluster { nodes, placed, nominated: self.nominated.clone(), ..Cluster::default() }
    }

    /// Nodes that exist.
    pub(crate) fn ready_nodes(&self) -> impl Iterator<Item = (&String, &NodeInfo)> {
        self.nodes.iter().filter(|(_, info)| info.node.is_some())
    }

    /// Counts the pod on `node`, and nowhere else.
    pub(crate) fn place(&mut self, node: &str, pod: Arc<PodInfo>) {
        self.remove_pod(pod.uid());
        self.nominated.remove(pod.uid());
        if !pod.anti_affinity.is_empty() {
            self.repelling.insert(node.to_owned());
        }
        if !pod.affinity.is_empty() || !pod.preferred.is_empty() {
            self.attracting.insert(node.to_owned());
        }
        self.placed.insert(pod.uid().to_owned(), node.to_owned());
        self.nodes.entry(node.to_owned()).or_default().add(pod);
    }

    /// Whether the pod was counted.
    pub(crate) fn remove_pod(&mut self, uid: &str) -> bool {
        let Some(node) = self.placed.remove(uid) else { return false };
        let Some(info) = self.nodes.get_mut(&node) else { return false };
        let Some(pod) = info.remove(uid) else { return false };
        if !pod.anti_affinity.is_empty() && info.pods.values().all(|p| p.anti_affinity.is_empty()) {
            self.repelling.remove(&node);
        }
        let idle = |p: &Arc<PodInfo>| p.affinity.is_empty() && p.preferred.is_empty();
        if !idle(&pod) && info.pods.values().all(idle) {
            self.attracting.remove(&node);
        }
        if info.node.is_none() && info.pods.is_empty() {
            self.nodes.remove(&node);
        }
        true
    }

    pub(crate) fn placed_on(&self, uid: &str) -> Option<&str> {
        self.placed.get(uid).map(String::as_str)
    }

    pub(crate) fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        match labels {
            Some(labels) => drop(self.namespaces.insert(name.to_owned(), labels)),
            None => drop(self.namespaces.remove(name)),
        }
    }

    pub(crate) fn namespace_labels(&self, name: &str) -> Option<&Labels> {
        self.namespaces.get(name)
    }

    /// Keeps room on `node` for the pod, against pods of lower priority.
    pub(crate) fn nominate(&mut self, node: &str, pod: Arc<PodInfo>) {
        self.nominated.insert(pod.uid().to_owned(), (node.to_owned(), pod));
    }

    pub(crate) fn forget_nomination(&mut self, uid: &str) {
        self.nominated.remove(uid);
    }

    /// What is kept on `node` for others that are at least as important as `pod`.
    pub(crate) fn kept_from(&self, pod: &PodInfo, node: &str) -> Vec<Arc<PodInfo>> {
        let kept = self.nominated.values().filter(|(at, other)| {
            at == node && other.priority() >= pod.priority() && other.uid() != pod.uid()
        });
        kept.map(|(_, other)| other.clone()).collect()
    }
}
