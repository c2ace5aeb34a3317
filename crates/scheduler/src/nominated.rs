//! Pods for which room is made on a node: others of lower or equal priority see them there already.

use std::collections::HashMap;
use std::sync::Arc;

use crate::pod::PodInfo;

#[derive(Debug, Clone, Default)]
pub(crate) struct Nominated {
    by_node: HashMap<String, Vec<Arc<PodInfo>>>,
    node_of: HashMap<String, String>,
}

impl Nominated {
    pub(crate) fn add(&mut self, node: &str, pod: Arc<PodInfo>) {
        self.remove(pod.uid());
        self.node_of.insert(pod.uid().to_owned(), node.to_owned());
        self.by_node.entry(node.to_owned()).or_default().push(pod);
    }

    /// The node it was nominated for.
    pub(crate) fn remove(&mut self, uid: &str) -> Option<String> {
        let node = self.node_of.remove(uid)?;
        if let Some(pods) = self.by_node.get_mut(&node) {
            pods.retain(|p| p.uid() != uid);
            if pods.is_empty() {
                self.by_node.remove(&node);
            }
        }
        Some(node)
    }

    pub(crate) fn node_of(&self, uid: &str) -> Option<&str> {
        self.node_of.get(uid).map(String::as_str)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_node.is_empty()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<PodInfo>> {
        self.by_node.values().flatten()
    }

    pub(crate) fn on(&self, node: &str) -> &[Arc<PodInfo>] {
        self.by_node.get(node).map_or(&[], Vec::as_slice)
    }

    /// Those on the node that `pod` must yield to.
    pub(crate) fn ahead_of<'a>(
        &'a self,
        pod: &'a PodInfo,
        node: &str,
    ) -> impl Iterator<Item = &'a Arc<PodInfo>> {
        let yields =
            |other: &&Arc<PodInfo>| other.priority() >= pod.priority() && other.uid() != pod.uid();
        self.on(node).iter().filter(yields)
    }
}
