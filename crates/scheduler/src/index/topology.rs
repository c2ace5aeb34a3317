//! Topology domains: the values that nodes have for a label key, numbered.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;

/// A label key that somebody counts by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct KeyId(usize);

/// The domain of a node that lacks the label.
pub(crate) const NO_DOMAIN: u32 = u32::MAX;

#[derive(Debug, Default)]
pub(crate) struct Topology {
    ids: HashMap<String, KeyId>,
    keys: Vec<Key>,
    /// Nodes by slot, for keys that are asked for later.
    nodes: Vec<Option<Arc<Node>>>,
    live: usize,
}

#[derive(Debug)]
struct Key {
    name: String,
    domains: HashMap<String, u32>,
    /// By slot.
    of_node: Vec<u32>,
    /// Nodes in each domain.
    sizes: Vec<u32>,
    /// Nodes that have the label.
    labelled: usize,
}

impl Topology {
    /// The number of a key, which is known from then on.
    pub(crate) fn key(&mut self, name: &str) -> KeyId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let mut key = Key {
            name: name.to_owned(),
            domains: HashMap::new(),
            of_node: Vec::new(),
            sizes: Vec::new(),
            labelled: 0,
        };
        for (slot, node) in self.nodes.iter().enumerate() {
            key.set(slot, node.as_ref());
        }
        let id = KeyId(self.keys.len());
        self.keys.push(key);
        self.ids.insert(name.to_owned(), id);
        id
    }

    /// The number of a key that somebody has counted by.
    pub(crate) fn known(&self, name: &str) -> Option<KeyId> {
        self.ids.get(name).copied()
    }

    /// The node's domain, or [`NO_DOMAIN`].
    pub(crate) fn domain(&self, key: KeyId, slot: u32) -> u32 {
        self.keys[key.0].of_node.get(slot as usize).copied().unwrap_or(NO_DOMAIN)
    }

    /// How many numbers the key's domains have; some may have no node any more.
    pub(crate) fn domains(&self, key: KeyId) -> usize {
        self.keys[key.0].sizes.len()
    }

    /// Whether a node is in the domain.
    pub(crate) fn is_live(&self, key: KeyId, domain: u32) -> bool {
        self.keys[key.0].sizes.get(domain as usize).is_some_and(|size| *size > 0)
    }

    /// Whether every node has the label.
    pub(crate) fn is_complete(&self, key: KeyId) -> bool {
        self.keys[key.0].labelled == self.live
    }

    /// A node's new state. Returns, by key, the domains it left and came to, where they changed and
    /// only where a domain lost its last node or got its first.
    pub(crate) fn set_node(
        &mut self,
        slot: u32,
        node: Option<&Arc<Node>>,
    ) -> Vec<(KeyId, Option<u32>, Option<u32>)> {
        let at = slot as usize;
        if self.nodes.len() <= at {
            self.nodes.resize(at + 1, None);
        }
        let was = self.nodes[at].is_some();
        self.live = self.live + usize::from(node.is_some()) - usize::from(was);
        self.nodes[at] = node.cloned();
        let mut changed = Vec::new();
        for (id, key) in self.keys.iter_mut().enumerate() {
            let before = key.of_node.get(at).copied().unwrap_or(NO_DOMAIN);
            let after = key.set(at, node);
            if before == after {
                continue;
            }
            let emptied = before != NO_DOMAIN && key.sizes[before as usize] == 0;
            let opened = after != NO_DOMAIN && key.sizes[after as usize] == 1;
            if emptied || opened {
                changed.push((KeyId(id), emptied.then_some(before), opened.then_some(after)));
            }
        }
        changed
    }
}

impl Key {
    fn set(&mut self, slot: usize, node: Option<&Arc<Node>>) -> u32 {
        if self.of_node.len() <= slot {
            self.of_node.resize(slot + 1, NO_DOMAIN);
        }
        let labels = node.and_then(|n| n.metadata.labels.as_ref());
        let value = labels.and_then(|l| l.get(&self.name));
        let domain = value.map_or(NO_DOMAIN, |value| match self.domains.get(value) {
            Some(domain) => *domain,
            None => {
                let domain = u32::try_from(self.sizes.len()).unwrap_or(NO_DOMAIN - 1);
                self.domains.insert(value.clone(), domain);
                self.sizes.push(0);
                domain
            }
        });
        let before = std::mem::replace(&mut self.of_node[slot], domain);
        if before != NO_DOMAIN {
            self.sizes[before as usize] -= 1;
            self.labelled -= 1;
        }
        if domain != NO_DOMAIN {
            self.sizes[domain as usize] += 1;
            self.labelled += 1;
        }
        domain
    }
}
