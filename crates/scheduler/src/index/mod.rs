//! Counts of pods by topology domain, kept up to date by changes, so that a cycle's cost does not grow
//! with the pods already placed.
//!
//! [`Topology`] numbers the domains (values of a label key), [`Trackers`] counts pods that a query
//! selects, [`TermGroups`] counts the terms that placed pods have. Each is built when first asked for
//! and follows the changes from then on.

mod counts;
mod groups;
mod topology;
mod trackers;

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;

use crate::labels::Labels;
use crate::node::NodeInfo;
use crate::pod::PodInfo;

pub(crate) use counts::DomainCounts;
pub(crate) use groups::TermGroups;
pub(crate) use topology::{KeyId, NO_DOMAIN, Topology};
pub(crate) use trackers::{Query, TrackerId, Trackers};

/// One change of the cache, in the order they happened.
#[derive(Debug)]
pub(crate) enum Delta {
    /// A pod was counted (`amount` 1) or is no longer (`amount` -1) on a node.
    Pod { slot: u32, pod: Arc<PodInfo>, amount: i64 },
    /// A node appeared, disappeared or changed its labels, while these pods were on it.
    Node { slot: u32, node: Option<Arc<Node>>, pods: Vec<Arc<PodInfo>> },
}

#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) topology: Topology,
    pub(crate) trackers: Trackers,
    /// Required anti-affinity terms of placed pods.
    pub(crate) anti_affinity: TermGroups,
    /// Required affinity terms of placed pods.
    pub(crate) affinity: TermGroups,
    /// Preferred terms of placed pods, counted with their weights.
    pub(crate) preferred: TermGroups,
    /// Labels of namespaces, as the counts know them.
    namespaces: Arc<HashMap<String, Labels>>,
    /// Pods that use a claim, by namespace and name.
    claims: HashMap<(String, String), i64>,
}

impl Index {
    pub(crate) fn apply(&mut self, delta: &Delta) {
        match delta {
            Delta::Pod { slot, pod, amount } => self.count(*slot, pod, *amount),
            Delta::Node { slot, node, pods } => {
                pods.iter().for_each(|pod| self.count(*slot, pod, -1));
                for (key, before, after) in self.topology.set_node(*slot, node.as_ref()) {
                    self.trackers.domains_changed(key, before, after);
                }
                pods.iter().for_each(|pod| self.count(*slot, pod, 1));
            }
        }
    }

    /// A count that depends on namespaces' labels is forgotten, and built anew when asked for.
    pub(crate) fn set_namespaces(&mut self, namespaces: Arc<HashMap<String, Labels>>) {
        if !Arc::ptr_eq(&self.namespaces, &namespaces) {
            self.namespaces = namespaces;
            self.trackers.forget_namespaced();
        }
    }

    pub(crate) fn namespace(&self, name: &str) -> Option<&Labels> {
        self.namespaces.get(name)
    }

    /// How many placed pods use the claim.
    pub(crate) fn claim_users(&self, namespace: &str, claim: &str) -> i64 {
        let key = (namespace.to_owned(), claim.to_owned());
        self.claims.get(&key).copied().unwrap_or(0)
    }

    /// The counter of the pods that `query` selects, by domain of `keys`.
    pub(crate) fn track<'a>(
        &mut self,
        query: Query,
        keys: &[KeyId],
        nodes: impl Iterator<Item = &'a Arc<NodeInfo>> + Clone,
    ) -> TrackerId {
        self.trackers.track(query, keys, &self.topology, &self.namespaces, nodes)
    }

    fn count(&mut self, slot: u32, pod: &Arc<PodInfo>, amount: i64) {
        self.trackers.count(slot, pod, amount, &self.topology, &self.namespaces);
        for term in &pod.anti_affinity {
            self.anti_affinity.count(term, slot, amount, 1, &mut self.topology);
        }
        for term in &pod.affinity {
            self.affinity.count(term, slot, amount, 1, &mut self.topology);
        }
        for (weight, term) in &pod.preferred {
            self.preferred.count(term, slot, amount, *weight, &mut self.topology);
        }
        for claim in &pod.claims {
            let key = (pod.namespace().to_owned(), claim.clone());
            let users = self.claims.entry(key).or_insert(0);
            *users += amount;
            if *users == 0 {
                let key = (pod.namespace().to_owned(), claim.clone());
                self.claims.remove(&key);
            }
        }
    }
}
