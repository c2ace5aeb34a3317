//! The affinity terms of placed pods: equal terms are one group, counted by domain.

use std::collections::HashMap;
use std::sync::Arc;

use super::{KeyId, NO_DOMAIN, Topology};
use crate::labels::{Labels, SelectorIndex};
use crate::pod::{PodInfo, Term};

#[derive(Debug, Default)]
pub(crate) struct TermGroups {
    ids: HashMap<(String, String), u32>,
    groups: Vec<Option<Group>>,
    free: Vec<u32>,
    selectors: SelectorIndex,
}

#[derive(Debug)]
struct Group {
    term: Arc<Term>,
    key: KeyId,
    /// Placed pods with this term.
    pods: i64,
    /// By domain.
    counts: Vec<i64>,
}

impl TermGroups {
    /// Counts `amount` pods more (or fewer) on a node that have the term, with this weight each.
    pub(crate) fn count(
        &mut self,
        term: &Arc<Term>,
        slot: u32,
        amount: i64,
        weight: i64,
        topology: &mut Topology,
    ) {
        let id = self.id_of(term, topology);
        let Some(group) = &mut self.groups[id as usize] else { return };
        group.pods += amount;
        let domain = topology.domain(group.key, slot);
        if domain != NO_DOMAIN {
            let at = domain as usize;
            if group.counts.len() <= at {
                group.counts.resize(at + 1, 0);
            }
            group.counts[at] += amount * weight;
        }
        if group.pods == 0 {
            self.remove(id);
        }
    }

    /// The groups whose term selects this pod.
    pub(crate) fn matching(&self, pod: &PodInfo, namespace: Option<&Labels>) -> Vec<u32> {
        let candidates = self.selectors.candidates(pod.labels());
        let matches = |id: &u32| {
            let group = self.groups.get(*id as usize).and_then(Option::as_ref);
            group.is_some_and(|g| g.term.matches(pod, namespace))
        };
        candidates.filter(matches).collect()
    }

    pub(crate) fn key(&self, id: u32) -> Option<KeyId> {
        self.groups.get(id as usize).and_then(Option::as_ref).map(|g| g.key)
    }

    pub(crate) fn get(&self, id: u32, domain: u32) -> i64 {
        let group = self.groups.get(id as usize).and_then(Option::as_ref);
        group.and_then(|g| g.counts.get(domain as usize)).copied().unwrap_or(0)
    }

    fn id_of(&mut self, term: &Arc<Term>, topology: &mut Topology) -> u32 {
        let identity = (term.topology_key.clone(), term.identity.clone());
        if let Some(id) = self.ids.get(&identity) {
            return *id;
        }
        let key = topology.key(&term.topology_key);
        let group = Group { term: term.clone(), key, pods: 0, counts: Vec::new() };
        let id = match self.free.pop() {
            Some(id) => {
                self.groups[id as usize] = Some(group);
                id
            }
            None => {
                self.groups.push(Some(group));
                u32::try_from(self.groups.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.ids.insert(identity, id);
        self.selectors.insert(&term.selector, id);
        id
    }

    fn remove(&mut self, id: u32) {
        if let Some(group) = self.groups[id as usize].take() {
            let term = &group.term;
            self.selectors.remove(&term.selector, id);
            self.ids.remove(&(term.topology_key.clone(), term.identity.clone()));
            self.free.push(id);
        }
    }
}
