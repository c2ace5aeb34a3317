//! The snapshot: the cluster as one scheduling cycle sees it. It belongs to the planner, which brings it
//! up to date between cycles at a cost that follows the changes; nothing changes it during a cycle.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;

use crate::cache::Update;
use crate::index::{Index, KeyId, Query, TrackerId};
use crate::labels::{Labels, keeps_away, taints};
use crate::node::NodeInfo;
use crate::nominated::Nominated;

const ZONE: &str = "topology.kubernetes.io/zone";
const REGION: &str = "topology.kubernetes.io/region";

#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// By slot.
    nodes: Vec<Option<Arc<NodeInfo>>>,
    /// By slot, beside the nodes, because every cycle reads many of them.
    generations: Vec<u64>,
    /// Slots of the nodes that exist, zones taking turns.
    order: Vec<u32>,
    by_name: HashMap<Arc<str>, u32>,
    pub(crate) index: Index,
    pub(crate) nominated: Arc<Nominated>,
    /// By image name, the nodes that have it and its size there.
    images: HashMap<String, HashMap<u32, i64>>,
    /// Nodes with a taint that keeps pods away, and with one that discourages them.
    tainted: (usize, usize),
}

impl Snapshot {
    pub(crate) fn apply(
        &mut self,
        update: Update,
        nominated: Arc<Nominated>,
        namespaces: Arc<HashMap<String, Labels>>,
    ) {
        if !Arc::ptr_eq(&self.nominated, &nominated) {
            self.nominated = nominated;
            // Their terms count on nodes where they are tried.
            for term in self.nominated.clone().all().flat_map(|p| p.anti_affinity.iter()) {
                self.index.topology.key(&term.topology_key);
            }
        }
        self.index.set_namespaces(namespaces);
        update.deltas.iter().for_each(|delta| self.index.apply(delta));
        for (slot, info) in update.nodes {
            self.set(slot, info);
        }
        if update.reordered {
            self.reorder();
        }
    }

    /// The number of nodes.
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    pub(crate) fn slots(&self) -> &[u32] {
        &self.order
    }

    pub(crate) fn node(&self, slot: u32) -> &Arc<NodeInfo> {
        self.nodes[slot as usize].as_ref().expect("a listed slot has a node")
    }

    /// What tells one state of a node from its others.
    pub(crate) fn generation(&self, slot: u32) -> u64 {
        self.generations[slot as usize]
    }

    /// All nodes that exist.
    pub(crate) fn listed(&self) -> impl Iterator<Item = &Arc<NodeInfo>> + Clone {
        self.order.iter().filter_map(|slot| self.nodes[*slot as usize].as_ref())
    }

    /// The slot of a node that exists.
    pub(crate) fn slot(&self, name: &str) -> Option<u32> {
        let slot = self.by_name.get(name).copied()?;
        self.nodes[slot as usize].as_ref().filter(|n| n.node.is_some()).map(|_| slot)
    }

    /// Gives up the snapshot's share in a node, so that the cache changes it in place; the next update
    /// brings it back.
    pub(crate) fn release(&mut self, slot: u32) {
        if let Some(info) = &mut self.nodes[slot as usize] {
            *info = Arc::new(NodeInfo {
                pods: Vec::new(),
                ports: Vec::new(),
                allocatable: info.allocatable.clone(),
                requested: info.requested.clone(),
                estimated: info.estimated.clone(),
                name: info.name.clone(),
                node: info.node.clone(),
                ..**info
            });
        }
    }

    /// The number of a topology key.
    pub(crate) fn key(&mut self, name: &str) -> KeyId {
        self.index.topology.key(name)
    }

    /// A counter of the pods that `query` selects.
    pub(crate) fn track(&mut self, query: Query, keys: &[KeyId]) -> TrackerId {
        let nodes = &self.nodes;
        self.index.track(query, keys, nodes.iter().flatten())
    }

    /// The nodes with an image, and its size there.
    pub(crate) fn image(&self, name: &str) -> Option<&HashMap<u32, i64>> {
        self.images.get(name)
    }

    pub(crate) fn has_tainted_nodes(&self) -> bool {
        self.tainted.0 > 0
    }

    pub(crate) fn has_discouraging_nodes(&self) -> bool {
        self.tainted.1 > 0
    }

    fn set(&mut self, slot: u32, info: Option<Arc<NodeInfo>>) {
        let at = slot as usize;
        if self.nodes.len() <= at {
            self.nodes.resize(at + 1, None);
            self.generations.resize(at + 1, 0);
        }
        self.generations[at] = info.as_ref().map_or(0, |info| info.generation);
        let old = std::mem::replace(&mut self.nodes[at], info.clone());
        let (before, after) = (
            old.as_ref().and_then(|n| n.node.as_ref()),
            info.as_ref().and_then(|n| n.node.as_ref()),
        );
        let same = match (before, after) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        if !same {
            self.node_object_changed(slot, before.map(|n| &**n), after.map(|n| &**n));
        }
        if let Some(old) = old.filter(|o| info.as_ref().is_none_or(|i| i.name != o.name)) {
            // It may have come back under another slot already.
            if self.by_name.get(&old.name) == Some(&slot) {
                self.by_name.remove(&old.name);
            }
        }
        if let Some(info) = info {
            self.by_name.insert(info.name.clone(), slot);
        }
    }

    fn node_object_changed(&mut self, slot: u32, before: Option<&Node>, after: Option<&Node>) {
        let hard = |n: &Node| usize::from(taints(n).iter().any(keeps_away));
        let soft = |n: &Node| usize::from(taints(n).iter().any(|t| t.effect == "PreferNoSchedule"));
        self.tainted.0 = self.tainted.0 + after.map_or(0, hard) - before.map_or(0, hard);
        self.tainted.1 = self.tainted.1 + after.map_or(0, soft) - before.map_or(0, soft);
        if images(before).eq(images(after)) {
            return;
        }
        for (name, _) in images(before) {
            if let Some(nodes) = self.images.get_mut(name) {
                nodes.remove(&slot);
                if nodes.is_empty() {
                    self.images.remove(name);
                }
            }
        }
        for (name, size) in images(after) {
            self.images.entry(name.to_owned()).or_default().insert(slot, size);
        }
    }

    /// Zones take turns, so that a search that ends early has seen all of them.
    fn reorder(&mut self) {
        let mut zones: BTreeMap<(&str, &str), Vec<u32>> = BTreeMap::new();
        for info in self.nodes.iter().flatten().filter(|n| n.node.is_some()) {
            let label = |key| info.label(key).unwrap_or("");
            zones.entry((label(REGION), label(ZONE))).or_default().push(info.slot);
        }
        let longest = zones.values().map(Vec::len).max().unwrap_or(0);
        let turn = |i: usize| zones.values().filter_map(move |zone| zone.get(i)).copied();
        self.order = (0..longest).flat_map(turn).collect();
    }
}

fn images(node: Option<&Node>) -> impl Iterator<Item = (&str, i64)> {
    let images = node.and_then(|n| n.status.as_ref()).and_then(|s| s.images.as_ref());
    images.into_iter().flatten().flat_map(|image| {
        let size = image.size_bytes.unwrap_or(0);
        image.names.iter().flatten().map(move |name| (name.as_str(), size))
    })
}
