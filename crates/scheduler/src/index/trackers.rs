//! Counters of the pods that a query selects, by node and by domain.

use std::collections::HashMap;
use std::sync::Arc;

use super::{DomainCounts, KeyId, NO_DOMAIN, Topology};
use crate::labels::{Labels, SelectorIndex};
use crate::node::NodeInfo;
use crate::pod::{PodInfo, Term};

/// Counters that are kept; the one that was not asked for the longest goes first. Each is as large as
/// the set of nodes that hold its pods.
const TRACKERS_MAX: usize = 2048;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TrackerId(u32);

/// Pods that all of the terms select. The terms' topology keys play no part.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) terms: Vec<Arc<Term>>,
    /// Whether pods that are ending count.
    pub(crate) terminating: bool,
}

impl Query {
    fn identity(&self) -> String {
        let terms: Vec<&str> = self.terms.iter().map(|t| t.identity.as_str()).collect();
        format!("{}\u{5}{}", self.terminating, terms.join("\u{5}"))
    }

    pub(crate) fn matches(&self, pod: &PodInfo, namespace: Option<&Labels>) -> bool {
        (self.terminating || !pod.terminating())
            && self.terms.iter().all(|t| t.matches(pod, namespace))
    }
}

#[derive(Debug, Default)]
pub(crate) struct Trackers {
    ids: HashMap<String, TrackerId>,
    trackers: Vec<Option<Tracker>>,
    free: Vec<u32>,
    selectors: SelectorIndex,
    clock: u64,
}

#[derive(Debug)]
struct Tracker {
    identity: String,
    query: Query,
    by_node: HashMap<u32, i64>,
    by_key: Vec<(KeyId, DomainCounts)>,
    used: u64,
}

impl Trackers {
    pub(crate) fn track<'a>(
        &mut self,
        query: Query,
        keys: &[KeyId],
        topology: &Topology,
        namespaces: &HashMap<String, Labels>,
        nodes: impl Iterator<Item = &'a Arc<NodeInfo>> + Clone,
    ) -> TrackerId {
        self.clock += 1;
        let identity = query.identity();
        let id = match self.ids.get(&identity) {
            Some(id) => *id,
            None => self.add(identity, query, namespaces, nodes.clone()),
        };
        let clock = self.clock;
        if let Some(tracker) = &mut self.trackers[id.0 as usize] {
            tracker.used = clock;
            for key in keys {
                if !tracker.by_key.iter().any(|(k, _)| k == key) {
                    tracker.by_key.push((*key, tracker.counts_by(*key, topology)));
                }
            }
        }
        id
    }

    /// The counts by a key that the counter was asked for with.
    pub(crate) fn by_key(&self, id: TrackerId, key: KeyId) -> Option<&DomainCounts> {
        let tracker = self.get(id)?;
        tracker.by_key.iter().find(|(k, _)| *k == key).map(|(_, counts)| counts)
    }

    pub(crate) fn by_node(&self, id: TrackerId, slot: u32) -> i64 {
        self.get(id).and_then(|t| t.by_node.get(&slot)).copied().unwrap_or(0)
    }

    pub(super) fn count(
        &mut self,
        slot: u32,
        pod: &PodInfo,
        amount: i64,
        topology: &Topology,
        namespaces: &HashMap<String, Labels>,
    ) {
        let namespace = namespaces.get(pod.namespace());
        for id in self.selectors.candidates(pod.labels()) {
            let tracker = self.trackers[id as usize].as_mut();
            if let Some(tracker) = tracker.filter(|t| t.query.matches(pod, namespace)) {
                tracker.count(slot, amount, topology);
            }
        }
    }

    pub(super) fn domains_changed(
        &mut self,
        key: KeyId,
        emptied: Option<u32>,
        opened: Option<u32>,
    ) {
        for tracker in self.trackers.iter_mut().flatten() {
            for (_, counts) in tracker.by_key.iter_mut().filter(|(k, _)| *k == key) {
                emptied.into_iter().for_each(|domain| counts.close(domain));
                opened.into_iter().for_each(|domain| counts.open(domain));
            }
        }
    }

    pub(super) fn forget_namespaced(&mut self) {
        let depends = |t: &Tracker| t.query.terms.iter().any(|t| t.depends_on_namespaces());
        let stale: Vec<usize> = (0..self.trackers.len())
            .filter(|at| self.trackers[*at].as_ref().is_some_and(depends))
            .collect();
        stale.into_iter().for_each(|at| self.forget(at));
    }

    fn get(&self, id: TrackerId) -> Option<&Tracker> {
        self.trackers.get(id.0 as usize).and_then(Option::as_ref)
    }

    fn add<'a>(
        &mut self,
        identity: String,
        query: Query,
        namespaces: &HashMap<String, Labels>,
        nodes: impl Iterator<Item = &'a Arc<NodeInfo>>,
    ) -> TrackerId {
        if self.ids.len() >= TRACKERS_MAX {
            let used = |at: &usize| self.trackers[*at].as_ref().map_or(u64::MAX, |t| t.used);
            if let Some(oldest) = (0..self.trackers.len()).min_by_key(used) {
                self.forget(oldest);
            }
        }
        let mut by_node = HashMap::new();
        for node in nodes {
            let matches = |pod: &&Arc<PodInfo>| query.matches(pod, namespaces.get(pod.namespace()));
            let count = node.pods.iter().filter(matches).count();
            if count > 0 {
                by_node.insert(node.slot, i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
        let tracker =
            Tracker { identity: identity.clone(), query, by_node, by_key: Vec::new(), used: 0 };
        let selector = tracker.query.terms.first().map(|t| t.selector.clone());
        let at = self.free.pop().unwrap_or_else(|| {
            self.trackers.push(None);
            u32::try_from(self.trackers.len() - 1).unwrap_or(u32::MAX)
        });
        self.trackers[at as usize] = Some(tracker);
        if let Some(selector) = selector {
            self.selectors.insert(&selector, at);
        }
        self.ids.insert(identity, TrackerId(at));
        TrackerId(at)
    }

    fn forget(&mut self, at: usize) {
        let Some(tracker) = self.trackers[at].take() else { return };
        let id = u32::try_from(at).unwrap_or(u32::MAX);
        if let Some(term) = tracker.query.terms.first() {
            self.selectors.remove(&term.selector, id);
        }
        self.ids.remove(&tracker.identity);
        self.free.push(id);
    }
}

impl Tracker {
    fn count(&mut self, slot: u32, amount: i64, topology: &Topology) {
        let here = self.by_node.entry(slot).or_insert(0);
        *here += amount;
        if *here == 0 {
            self.by_node.remove(&slot);
        }
        for (key, counts) in &mut self.by_key {
            let domain = topology.domain(*key, slot);
            if domain != NO_DOMAIN {
                counts.add(domain, amount);
            }
        }
    }

    fn counts_by(&self, key: KeyId, topology: &Topology) -> DomainCounts {
        let mut counts = DomainCounts::default();
        for (slot, count) in &self.by_node {
            let domain = topology.domain(key, *slot);
            if domain != NO_DOMAIN {
                counts.add(domain, *count);
            }
        }
        for domain in 0..u32::try_from(topology.domains(key)).unwrap_or(0) {
            if topology.is_live(key, domain) {
                counts.open(domain);
            }
        }
        counts
    }
}
