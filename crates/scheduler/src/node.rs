//! A node with the sums of what its pods take.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;

use crate::pod::{HostPort, PodInfo};
use crate::resources::Resources;

#[derive(Debug, Clone)]
pub(crate) struct NodeInfo {
    /// Its place in arrays over all nodes; kept for as long as the node is known.
    pub(crate) slot: u32,
    /// Unique to this state of this node.
    pub(crate) generation: u64,
    pub(crate) name: Arc<str>,
    /// `None` while only its pods are known.
    pub(crate) node: Option<Arc<Node>>,
    pub(crate) allocatable: Resources,
    pub(crate) pods_max: usize,
    pub(crate) requested: Resources,
    pub(crate) estimated: Resources,
    pub(crate) pods: Vec<Arc<PodInfo>>,
    /// Host ports that its pods use.
    pub(crate) ports: Vec<HostPort>,
    /// The least priority among its pods; `i32::MAX` when there are none.
    pub(crate) least_priority: i32,
}

impl NodeInfo {
    pub(crate) fn new(slot: u32, name: &str) -> NodeInfo {
        NodeInfo {
            slot,
            generation: 0,
            name: name.into(),
            node: None,
            allocatable: Resources::default(),
            pods_max: 0,
            requested: Resources::default(),
            estimated: Resources::default(),
            pods: Vec::new(),
            ports: Vec::new(),
            least_priority: i32::MAX,
        }
    }

    pub(crate) fn set_node(&mut self, node: Arc<Node>) {
        let allocatable = node.status.as_ref().and_then(|s| s.allocatable.as_ref());
        self.allocatable = Resources::of(allocatable);
        let pods = allocatable.and_then(|a| a.get("pods"));
        let pods = pods.and_then(|q| api::quantity::Quantity::parse(&q.0).ok());
        self.pods_max = pods.map_or(0, |q| usize::try_from(q.value()).unwrap_or(0));
        self.node = Some(node);
    }

    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        let labels = self.node.as_ref()?.metadata.labels.as_ref()?;
        labels.get(key).map(String::as_str)
    }

    pub(crate) fn add(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.estimated.add(&pod.estimate);
        self.ports.extend(pod.ports.iter().cloned());
        self.least_priority = self.least_priority.min(pod.priority());
        self.pods.push(pod);
    }

    pub(crate) fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let at = self.pods.iter().position(|p| p.uid() == uid)?;
        Some(self.remove_at(at))
    }

    /// [`NodeInfo::remove`] for a pod that was taken from here.
    pub(crate) fn remove_same(&mut self, pod: &Arc<PodInfo>) {
        if let Some(at) = self.pods.iter().position(|p| Arc::ptr_eq(p, pod)) {
            self.remove_at(at);
        }
    }

    fn remove_at(&mut self, at: usize) -> Arc<PodInfo> {
        let pod = self.pods.swap_remove(at);
        self.requested.subtract(&pod.requests);
        self.estimated.subtract(&pod.estimate);
        for port in &pod.ports {
            if let Some(at) = self.ports.iter().position(|p| p == port) {
                self.ports.swap_remove(at);
            }
        }
        if pod.priority() == self.least_priority {
            self.least_priority = self.pods.iter().map(|p| p.priority()).min().unwrap_or(i32::MAX);
        }
        pod
    }
}
