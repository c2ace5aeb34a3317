//! The cache: nodes and the pods on them, kept by changes only.
//!
//! A pod that was given a node is counted there at once ("assumed"), before the server confirms; the
//! server's word replaces it. What changed since the last look goes into the next [`Update`] of the
//! snapshot.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;

use crate::index::Delta;
use crate::node::NodeInfo;
use crate::pod::PodInfo;

#[derive(Debug, Default)]
pub(crate) struct Cache {
    /// By slot.
    nodes: Vec<Option<Arc<NodeInfo>>>,
    by_name: HashMap<Arc<str>, u32>,
    free: Vec<u32>,
    pods: HashMap<String, Placed>,
    generation: u64,
    changed: Vec<u32>,
    deltas: Vec<Delta>,
    /// Nodes appeared, disappeared or moved to another zone.
    reordered: bool,
}

#[derive(Debug)]
struct Placed {
    slot: u32,
    /// The server has not confirmed yet.
    assumed: bool,
}

/// What the snapshot has to learn.
#[derive(Debug, Default)]
pub(crate) struct Update {
    pub(crate) nodes: Vec<(u32, Option<Arc<NodeInfo>>)>,
    pub(crate) deltas: Vec<Delta>,
    pub(crate) reordered: bool,
}

impl Cache {
    /// Nodes, pods on them, and those of the pods that the server has not confirmed.
    pub(crate) fn counts(&self) -> [usize; 3] {
        let assumed = self.pods.values().filter(|placed| placed.assumed).count();
        [self.by_name.len(), self.pods.len(), assumed]
    }

    pub(crate) fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let slot = self.slot_of(&name);
        let before = self.nodes[slot as usize].as_ref().and_then(|n| n.node.clone());
        let relabelled = before.as_ref().map(|n| &n.metadata.labels) != Some(&node.metadata.labels);
        self.change(slot, |info| info.set_node(node.clone()));
        if before.is_none() || relabelled {
            self.reordered = true;
            self.node_delta(slot, Some(node));
        }
    }

    pub(crate) fn remove_node(&mut self, name: &str) {
        let Some(slot) = self.by_name.get(name).copied() else { return };
        self.change(slot, |info| info.node = None);
        self.reordered = true;
        self.node_delta(slot, None);
        self.release_if_empty(slot);
    }

    /// Counts a pod on `node` that the server has there, and nowhere else.
    pub(crate) fn add_pod(&mut self, node: &str, pod: Arc<PodInfo>) {
        self.place(node, pod, false);
    }

    /// Counts a pod on `node` that is about to be bound there.
    pub(crate) fn assume(&mut self, node: &str, pod: Arc<PodInfo>) {
        self.place(node, pod, true);
    }

    /// Whether the pod was counted.
    pub(crate) fn remove_pod(&mut self, uid: &str) -> bool {
        let Some(placed) = self.pods.remove(uid) else { return false };
        let mut removed = None;
        self.change(placed.slot, |info| removed = info.remove(uid));
        if let Some(pod) = removed {
            self.deltas.push(Delta::Pod { slot: placed.slot, pod, amount: -1 });
        }
        self.release_if_empty(placed.slot);
        true
    }

    /// Takes an assumed pod back; one that the server has confirmed stays.
    pub(crate) fn forget(&mut self, uid: &str) -> bool {
        self.is_assumed(uid) && self.remove_pod(uid)
    }

    pub(crate) fn is_assumed(&self, uid: &str) -> bool {
        self.pods.get(uid).is_some_and(|p| p.assumed)
    }

    pub(crate) fn is_placed(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// Where the pod is counted, and as what.
    pub(crate) fn placed(&self, uid: &str) -> Option<(&Arc<NodeInfo>, &Arc<PodInfo>)> {
        let placed = self.pods.get(uid)?;
        let node = self.nodes[placed.slot as usize].as_ref()?;
        let pod = node.pods.iter().find(|p| p.uid() == uid)?;
        Some((node, pod))
    }

    /// The snapshot has lost a node's state: it is part of the next update.
    pub(crate) fn touch(&mut self, slot: u32) {
        self.changed.push(slot);
    }

    /// The snapshot has lost everything: the next update tells all.
    pub(crate) fn touch_all(&mut self) {
        self.deltas.clear();
        self.reordered = true;
        for (slot, info) in self.nodes.iter().enumerate() {
            let Some(info) = info else { continue };
            let slot = u32::try_from(slot).unwrap_or(u32::MAX);
            self.changed.push(slot);
            let node = info.node.clone();
            self.deltas.push(Delta::Node { slot, node, pods: Vec::new() });
            let pod = |pod: &Arc<PodInfo>| Delta::Pod { slot, pod: pod.clone(), amount: 1 };
            self.deltas.extend(info.pods.iter().map(pod));
        }
    }

    /// What was remembered of nodes no longer holds, because it follows from other objects, too.
    pub(crate) fn renew_all(&mut self) {
        let count = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        (0..count).for_each(|slot| self.change(slot, |_| {}));
    }

    /// What changed since the last call. Costs follow the changes.
    pub(crate) fn take_update(&mut self) -> Update {
        self.changed.sort_unstable();
        self.changed.dedup();
        let changed = std::mem::take(&mut self.changed);
        let nodes = changed.into_iter().map(|slot| (slot, self.nodes[slot as usize].clone()));
        Update {
            nodes: nodes.collect(),
            deltas: std::mem::take(&mut self.deltas),
            reordered: std::mem::take(&mut self.reordered),
        }
    }

    fn place(&mut self, node: &str, pod: Arc<PodInfo>, assumed: bool) {
        self.remove_pod(pod.uid());
        let slot = self.slot_of(node);
        self.pods.insert(pod.uid().to_owned(), Placed { slot, assumed });
        self.change(slot, |info| info.add(pod.clone()));
        self.deltas.push(Delta::Pod { slot, pod, amount: 1 });
    }

    fn change(&mut self, slot: u32, change: impl FnOnce(&mut NodeInfo)) {
        let Some(info) = &mut self.nodes[slot as usize] else { return };
        let info = Arc::make_mut(info);
        change(info);
        self.generation += 1;
        info.generation = self.generation;
        self.changed.push(slot);
    }

    fn node_delta(&mut self, slot: u32, node: Option<Arc<Node>>) {
        let info = self.nodes[slot as usize].as_ref();
        let pods = info.map_or_else(Vec::new, |info| info.pods.clone());
        self.deltas.push(Delta::Node { slot, node, pods });
    }

    fn slot_of(&mut self, name: &str) -> u32 {
        if let Some(slot) = self.by_name.get(name) {
            return *slot;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(None);
            u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX)
        });
        let info = NodeInfo::new(slot, name);
        self.by_name.insert(info.name.clone(), slot);
        self.nodes[slot as usize] = Some(Arc::new(info));
        slot
    }

    fn release_if_empty(&mut self, slot: u32) {
        let empty = |info: &Arc<NodeInfo>| info.node.is_none() && info.pods.is_empty();
        if let Some(info) = self.nodes[slot as usize].take_if(|info| empty(info)) {
            self.by_name.remove(&info.name);
            self.free.push(slot);
            self.changed.push(slot);
        }
    }
}
