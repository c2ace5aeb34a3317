//! InterPodAffinity: where pods are that this one wants or avoids, and what placed pods say of this one.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};

use super::names;
use crate::event::{Action, ClusterEvent, Interest, Object, Resource};
use crate::framework::{
    Code, Cycle, CycleState, Gap, MAX_NODE_SCORE, Plugin, Points, PreFilter, Preparing, Verdict,
    reject,
};
use crate::index::{KeyId, NO_DOMAIN, Query, TrackerId};
use crate::labels::Labels;
use crate::node::NodeInfo;
use crate::pod::{PodInfo, Term, node_of};
use crate::snapshot::Snapshot;

#[derive(Debug)]
pub(crate) struct InterPodAffinity {
    /// What a placed pod's required affinity counts for in scoring.
    pub(crate) hard_pod_affinity_weight: i64,
    pub(crate) ignore_preferred_terms_of_existing_pods: bool,
}

impl Default for InterPodAffinity {
    fn default() -> InterPodAffinity {
        InterPodAffinity {
            hard_pod_affinity_weight: 1,
            ignore_preferred_terms_of_existing_pods: false,
        }
    }
}

/// Pods tried on or off nodes, by key and domain.
type Tried = Vec<((KeyId, u32), i64)>;

fn note(tried: &mut Tried, at: (KeyId, u32), amount: i64) {
    match tried.iter_mut().find(|(other, _)| *other == at) {
        Some((_, sum)) => *sum += amount,
        None => tried.push((at, amount)),
    }
}

fn tried_at(tried: &Tried, at: (KeyId, u32)) -> i64 {
    tried.iter().find(|(other, _)| *other == at).map_or(0, |(_, sum)| *sum)
}

#[derive(Debug, Clone)]
struct Required {
    /// Groups of placed pods whose anti-affinity selects this pod.
    refused_by: Vec<(KeyId, u32)>,
    refused_tried: Tried,
    /// Counts the pods that all affinity terms select, by each term's key.
    wanted: Option<(TrackerId, Vec<KeyId>)>,
    wanted_tried: Tried,
    avoided: Vec<(KeyId, TrackerId)>,
    avoided_tried: Vec<Tried>,
    /// The pod is one of those that it wants.
    wants_itself: bool,
}

#[derive(Debug, Clone)]
struct Preferred {
    /// Counters and weights of the pod's own terms.
    own: Vec<(KeyId, TrackerId, i64)>,
    /// Groups of placed pods' required terms that select this pod.
    affinity: Vec<(KeyId, u32)>,
    /// Groups of placed pods' preferred terms that select this pod.
    preferred: Vec<(KeyId, u32)>,
}

fn query(terms: &[Arc<Term>]) -> Query {
    Query { terms: terms.to_vec(), terminating: true }
}

fn selects_all(terms: &[Arc<Term>], pod: &PodInfo, namespace: Option<&Labels>) -> bool {
    !terms.is_empty() && terms.iter().all(|t| t.matches(pod, namespace))
}

impl Required {
    fn wants(&self, cycle: &Cycle<'_>, slot: u32) -> bool {
        let Some((id, keys)) = &self.wanted else { return true };
        let index = &cycle.snapshot.index;
        let domain = |key: &KeyId| index.topology.domain(*key, slot);
        if keys.iter().any(|key| domain(key) == NO_DOMAIN) {
            return false;
        }
        let present = |key: &KeyId| {
            let counts = index.trackers.by_key(*id, *key);
            let counted = counts.map_or(0, |c| c.get(domain(key)));
            counted + tried_at(&self.wanted_tried, (*key, domain(key))) > 0
        };
        // The first pod of a group that wants its own kind may go anywhere.
        keys.iter().all(present) || self.wants_itself && self.is_first(cycle, *id, keys)
    }

    fn is_first(&self, cycle: &Cycle<'_>, id: TrackerId, keys: &[KeyId]) -> bool {
        let total = |key: &KeyId| {
            cycle.snapshot.index.trackers.by_key(id, *key).map_or(0, |counts| counts.total())
        };
        let tried: i64 = self.wanted_tried.iter().map(|(_, amount)| amount).sum();
        keys.iter().map(total).sum::<i64>() + tried <= 0
    }

    fn avoids(&self, snapshot: &Snapshot, slot: u32) -> bool {
        let index = &snapshot.index;
        self.avoided.iter().zip(&self.avoided_tried).any(|((key, id), tried)| {
            let domain = index.topology.domain(*key, slot);
            let counted = || index.trackers.by_key(*id, *key).map_or(0, |c| c.get(domain));
            domain != NO_DOMAIN && counted() + tried_at(tried, (*key, domain)) > 0
        })
    }

    fn is_refused(&self, snapshot: &Snapshot, slot: u32) -> bool {
        let index = &snapshot.index;
        let at = |key: KeyId| {
            let domain = index.topology.domain(key, slot);
            let groups = self.refused_by.iter().filter(|(k, _)| *k == key);
            let counted: i64 = groups.map(|(_, id)| index.anti_affinity.get(*id, domain)).sum();
            domain != NO_DOMAIN && counted + tried_at(&self.refused_tried, (key, domain)) > 0
        };
        let tried = self.refused_tried.iter().map(|((key, _), _)| *key);
        self.refused_by.iter().map(|(key, _)| *key).chain(tried).any(at)
    }
}

impl InterPodAffinity {
    fn try_pod(
        &self,
        cycle: &Cycle<'_>,
        state: &mut CycleState,
        other: &PodInfo,
        node: &NodeInfo,
        amount: i64,
    ) {
        let Some(required) = state.get_mut::<Required>() else { return };
        let index = &cycle.snapshot.index;
        let (own, theirs) =
            (index.namespace(cycle.pod.namespace()), index.namespace(other.namespace()));
        for term in other.anti_affinity.iter().filter(|t| t.matches(cycle.pod, own)) {
            // A key that no placed pod's term has is unknown: the pod is not placed, only nominated, and
            // its term is found when it is.
            let Some(key) = index.topology.known(&term.topology_key) else { continue };
            let domain = index.topology.domain(key, node.slot);
            if domain != NO_DOMAIN {
                note(&mut required.refused_tried, (key, domain), amount);
            }
        }
        if selects_all(&cycle.pod.affinity, other, theirs)
            && let Some((_, keys)) = &required.wanted
        {
            for key in keys {
                let domain = index.topology.domain(*key, node.slot);
                if domain != NO_DOMAIN {
                    note(&mut required.wanted_tried, (*key, domain), amount);
                }
            }
        }
        let avoided = required.avoided.iter().zip(&mut required.avoided_tried);
        for (term, ((key, _), tried)) in cycle.pod.anti_affinity.iter().zip(avoided) {
            let domain = index.topology.domain(*key, node.slot);
            if domain != NO_DOMAIN && term.matches(other, theirs) {
                note(tried, (*key, domain), amount);
            }
        }
    }
}

fn groups(
    groups: &crate::index::TermGroups,
    pod: &PodInfo,
    namespace: Option<&Labels>,
) -> Vec<(KeyId, u32)> {
    let found = groups.matching(pod, namespace).into_iter();
    found.filter_map(|id| Some((groups.key(id)?, id))).collect()
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        names::INTER_POD_AFFINITY
    }

    fn points(&self) -> Points {
        let filter = Points::PRE_FILTER.and(Points::FILTER);
        filter.and(Points::PRE_SCORE).and(Points::SCORE)
    }

    fn events(&self) -> &'static [Interest] {
        &[
            (Resource::Pod, Action::ADD),
            (Resource::Pod, Action::POD_LABEL),
            (Resource::Pod, Action::DELETE),
            (Resource::Node, Action::ADD),
            (Resource::Node, Action::NODE_LABEL),
            (Resource::Namespace, Action::ADD),
            (Resource::Namespace, Action::UPDATE),
        ]
    }

    fn queueing_hint(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        match &event.object {
            Object::Pod((old, new)) => pod_helps(pod, old.as_ref(), new.as_ref()),
            Object::Node((old, Some(new))) => node_helps(pod, old.as_deref(), new),
            Object::Namespace((old, new)) => {
                let labels = |n: &Option<Arc<k8s_openapi::api::core::v1::Namespace>>| {
                    n.as_ref().map(|n| n.metadata.labels.clone().unwrap_or_default())
                };
                let (name, old, new) =
                    (new.as_ref().and_then(|n| n.metadata.name.clone()), labels(old), labels(new));
                // Placed pods may select this pod by its namespace's labels.
                let own = name.as_deref() == Some(pod.namespace());
                let terms = pod.affinity.iter().chain(&pod.anti_affinity);
                let moved = |t: &Arc<Term>| {
                    t.selects_namespace(old.as_ref()) != t.selects_namespace(new.as_ref())
                };
                old != new && (own || terms.into_iter().any(moved))
            }
            _ => false,
        }
    }

    fn pre_filter(&self, cycle: &mut Preparing<'_>) -> PreFilter {
        let (pod, snapshot) = (cycle.pod, &mut *cycle.snapshot);
        let namespace = snapshot.index.namespace(pod.namespace());
        let refused_by = groups(&snapshot.index.anti_affinity, pod, namespace);
        if refused_by.is_empty() && pod.affinity.is_empty() && pod.anti_affinity.is_empty() {
            return PreFilter::Skip;
        }
        let wants_itself = selects_all(&pod.affinity, pod, namespace);
        let keys: Vec<KeyId> = pod.affinity.iter().map(|t| snapshot.key(&t.topology_key)).collect();
        let wanted = match pod.affinity.as_slice() {
            [] => None,
            terms => Some((snapshot.track(query(terms), &keys), keys)),
        };
        let mut avoided = Vec::new();
        for term in &pod.anti_affinity {
            let key = snapshot.key(&term.topology_key);
            let id = snapshot.track(query(std::slice::from_ref(term)), &[key]);
            avoided.push((key, id));
        }
        cycle.state.set(Required {
            refused_by,
            refused_tried: Tried::new(),
            wanted,
            wanted_tried: Tried::new(),
            avoided_tried: vec![Tried::new(); avoided.len()],
            avoided,
            wants_itself,
        });
        PreFilter::Continue
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Verdict {
        let Some(required) = cycle.state.get::<Required>() else { return Ok(()) };
        if !required.wants(cycle, node.slot) {
            let why = "node(s) didn't match pod affinity rules";
            return Err(reject(Code::Unresolvable, self.name(), why));
        }
        if required.avoids(cycle.snapshot, node.slot) {
            let why = "node(s) didn't match pod anti-affinity rules";
            return Err(reject(Code::Unschedulable, self.name(), why));
        }
        if required.is_refused(cycle.snapshot, node.slot) {
            let why = "node(s) didn't satisfy existing pods anti-affinity rules";
            return Err(reject(Code::Unschedulable, self.name(), why));
        }
        Ok(())
    }

    fn add_pod(&self, cycle: &Cycle<'_>, state: &mut CycleState, pod: &PodInfo, node: &NodeInfo) {
        self.try_pod(cycle, state, pod, node, 1);
    }

    fn remove_pod(
        &self,
        cycle: &Cycle<'_>,
        state: &mut CycleState,
        pod: &PodInfo,
        node: &NodeInfo,
    ) {
        self.try_pod(cycle, state, pod, node, -1);
    }

    fn pre_score(&self, cycle: &mut Preparing<'_>, _: &[u32]) -> bool {
        let (pod, snapshot) = (cycle.pod, &mut *cycle.snapshot);
        if self.ignore_preferred_terms_of_existing_pods && pod.preferred.is_empty() {
            return false;
        }
        let namespace = snapshot.index.namespace(pod.namespace());
        let affinity = match self.hard_pod_affinity_weight {
            0 => Vec::new(),
            _ => groups(&snapshot.index.affinity, pod, namespace),
        };
        let preferred = groups(&snapshot.index.preferred, pod, namespace);
        let mut own = Vec::new();
        for (weight, term) in &pod.preferred {
            let key = snapshot.key(&term.topology_key);
            let id = snapshot.track(query(std::slice::from_ref(term)), &[key]);
            let counts = snapshot.index.trackers.by_key(id, key);
            if counts.is_some_and(|counts| counts.total() > 0) {
                own.push((key, id, *weight));
            }
        }
        let any = !own.is_empty() || !affinity.is_empty() || !preferred.is_empty();
        cycle.state.set(Preferred { own, affinity, preferred });
        any
    }

    fn score(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
        let Some(state) = cycle.state.get::<Preferred>() else { return 0 };
        let index = &cycle.snapshot.index;
        let domain =
            |key: KeyId| Some(index.topology.domain(key, node.slot)).filter(|d| *d != NO_DOMAIN);
        let own = state.own.iter().filter_map(|(key, id, weight)| {
            Some(index.trackers.by_key(*id, *key)?.get(domain(*key)?) * weight)
        });
        let affinity = state.affinity.iter().filter_map(|(key, id)| {
            Some(index.affinity.get(*id, domain(*key)?) * self.hard_pod_affinity_weight)
        });
        let preferred = state
            .preferred
            .iter()
            .filter_map(|(key, id)| Some(index.preferred.get(*id, domain(*key)?)));
        own.chain(affinity).chain(preferred).sum()
    }

    fn normalizes(&self) -> bool {
        true
    }

    /// The least becomes 0, the greatest the best.
    fn normalize(&self, _: &Cycle<'_>, _: &[u32], scores: &mut [i64]) {
        let least = scores.iter().copied().min().unwrap_or(0);
        let range = scores.iter().copied().max().unwrap_or(0) - least;
        for score in scores {
            *score = match range {
                0 => 0,
                _ => (MAX_NODE_SCORE as f64 * ((*score - least) as f64 / range as f64)) as i64,
            };
        }
    }

    fn gap(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Option<Gap> {
        let required = cycle.state.get::<Required>()?;
        let key = |terms: &[Arc<Term>]| {
            let keys: Vec<&str> = terms.iter().map(|t| t.topology_key.as_str()).collect();
            keys.join(", ")
        };
        let remedy = if !required.wants(cycle, node.slot) {
            format!("a pod that its affinity selects in the same {}", key(&cycle.pod.affinity))
        } else if required.avoids(cycle.snapshot, node.slot) {
            format!(
                "no pod that its anti-affinity selects in the same {}",
                key(&cycle.pod.anti_affinity)
            )
        } else if required.is_refused(cycle.snapshot, node.slot) {
            "the end of the pods there whose anti-affinity selects it".to_owned()
        } else {
            return None;
        };
        Some(Gap { distance: 1.0, remedy })
    }
}

fn scheduled(pod: &Pod) -> bool {
    let nominated = pod.status.as_ref().and_then(|s| s.nominated_node_name.as_deref());
    node_of(pod).is_some() || nominated.is_some_and(|n| !n.is_empty())
}

fn pod_helps(pod: &PodInfo, old: Option<&Arc<Pod>>, new: Option<&Arc<Pod>>) -> bool {
    if let (Some(_), Some(new)) = (old, new)
        && new.metadata.uid == pod.pod.metadata.uid
    {
        return true;
    }
    if [old, new].into_iter().flatten().any(|other| !scheduled(other)) {
        return false;
    }
    // Namespaces' labels are not at hand: a term with a namespace selector may select anybody.
    let unsure = |terms: &[Arc<Term>]| terms.iter().any(|t| t.depends_on_namespaces());
    let selected = |terms: &[Arc<Term>], other: &Pod| {
        !terms.is_empty() && terms.iter().all(|t| t.matches_pod(other, None))
    };
    match (old, new) {
        (Some(old), Some(new)) => {
            unsure(&pod.affinity)
                || unsure(&pod.anti_affinity)
                || !selected(&pod.affinity, old) && selected(&pod.affinity, new)
                || selected(&pod.anti_affinity, old) && !selected(&pod.anti_affinity, new)
        }
        (None, Some(new)) => unsure(&pod.affinity) || selected(&pod.affinity, new),
        (Some(old), None) => {
            let any = |terms: &[Arc<Term>], other: &Pod| {
                unsure(terms) || terms.iter().any(|t| t.matches_pod(other, None))
            };
            let avoids = |other: &Pod| {
                let affinity = other.spec.as_ref().and_then(|s| s.affinity.as_ref());
                affinity.is_some_and(|a| a.pod_anti_affinity.is_some())
            };
            any(&pod.anti_affinity, old)
                || avoids(old) && any(&PodInfo::new(old.clone()).anti_affinity, &pod.pod)
        }
        (None, None) => false,
    }
}

fn node_helps(pod: &PodInfo, old: Option<&Node>, new: &Node) -> bool {
    let label =
        |node: &Node, key: &str| node.metadata.labels.as_ref().and_then(|l| l.get(key)).cloned();
    let wanted = |t: &Arc<Term>| {
        let after = label(new, &t.topology_key);
        let before = old.and_then(|old| label(old, &t.topology_key));
        after.is_some() && before != after
    };
    let avoided = |t: &Arc<Term>| match old {
        None => true,
        Some(old) => {
            let before = label(old, &t.topology_key);
            before.is_some() && before != label(new, &t.topology_key)
        }
    };
    pod.affinity.iter().any(wanted)
        || pod.anti_affinity.iter().any(avoided)
        // Placed pods' anti-affinity rejected it: only the node's domains may have changed that.
        || pod.affinity.is_empty() && pod.anti_affinity.is_empty()
}
