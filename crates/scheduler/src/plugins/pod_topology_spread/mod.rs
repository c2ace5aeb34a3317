//! PodTopologySpread: constraints that must hold are a filter, those that should are a score.
//!
//! Pods without constraints of their own have the configured defaults, and their fellows are found by the
//! selectors of the services and sets that select them.

mod constraint;
mod score;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};

use super::names;
use crate::event::{Action, ClusterEvent, Interest, Resource};
use crate::framework::{
    Code, Cycle, CycleState, Gap, Plugin, Points, PreFilter, Preparing, Verdict, reject,
};
use crate::index::{DomainCounts, KeyId, NO_DOMAIN, TrackerId};
use crate::node::NodeInfo;
use crate::pod::{PodInfo, node_of};
use crate::snapshot::Snapshot;
use crate::store::Listers;

use constraint::{Constraint, Defaults};

pub(crate) use constraint::{DefaultConstraint, system_defaults};

#[derive(Debug)]
pub(crate) struct PodTopologySpread {
    defaults: Defaults,
}

impl PodTopologySpread {
    /// With the system's defaults.
    pub(crate) fn new(listers: Arc<Listers>) -> PodTopologySpread {
        PodTopologySpread { defaults: Defaults { list: system_defaults(), system: true, listers } }
    }

    /// With defaults from the configuration.
    pub(crate) fn with_defaults(
        listers: Arc<Listers>,
        list: Vec<DefaultConstraint>,
    ) -> PodTopologySpread {
        PodTopologySpread { defaults: Defaults { list, system: false, listers } }
    }
}

/// Where a constraint's counts are.
#[derive(Debug, Clone)]
enum Counts {
    /// Every node counts: the snapshot keeps the counts.
    Kept(TrackerId),
    /// Only some nodes count for this pod.
    Own(Arc<DomainCounts>),
}

impl Counts {
    fn domains<'a>(&'a self, snapshot: &'a Snapshot, key: KeyId) -> Option<&'a DomainCounts> {
        match self {
            Counts::Kept(id) => snapshot.index.trackers.by_key(*id, key),
            Counts::Own(counts) => Some(counts),
        }
    }
}

/// A constraint that must hold, with its counts.
#[derive(Debug, Clone)]
struct Hard {
    constraint: Arc<Constraint>,
    key: KeyId,
    counts: Counts,
    /// 1 if the pod itself is counted.
    itself: i64,
    /// Pods tried on or off nodes, by domain.
    tried: Vec<(u32, i64)>,
}

impl Hard {
    fn skew(&self, snapshot: &Snapshot, domain: u32) -> i64 {
        let Some(counts) = self.counts.domains(snapshot, self.key) else { return 0 };
        let domains = i64::try_from(counts.len()).unwrap_or(i64::MAX);
        let least = match domains < self.constraint.min_domains {
            true => 0,
            false => counts.least_with(&self.tried).unwrap_or(0),
        };
        let tried = self.tried.iter().find(|(d, _)| *d == domain).map_or(0, |(_, n)| *n);
        counts.get(domain) + tried + self.itself - least
    }
}

#[derive(Debug, Clone)]
struct HardConstraints(Vec<Hard>);

/// The counts by domain for the constraints, as this pod sees the nodes.
fn counts_for(
    cycle: &mut Preparing<'_>,
    constraints: &[Arc<Constraint>],
    all_keys: bool,
) -> Vec<(KeyId, Counts)> {
    let snapshot = &mut *cycle.snapshot;
    let keys: Vec<KeyId> = constraints.iter().map(|c| snapshot.key(&c.topology_key)).collect();
    let several = keys.iter().any(|k| *k != keys[0]);
    let complete = keys.iter().all(|k| snapshot.index.topology.is_complete(*k));
    let mut out = Vec::new();
    for (constraint, key) in constraints.iter().zip(&keys) {
        let id = snapshot.track(constraint.query(), &[*key]);
        let every_node = constraint.counts_every_node(cycle.pod, snapshot);
        let counts = match every_node && (complete || !several || !all_keys) {
            true => Counts::Kept(id),
            false => Counts::Own(Arc::new(own_counts(
                snapshot,
                cycle.pod,
                constraint,
                *key,
                id,
                all_keys.then_some(&keys),
            ))),
        };
        out.push((*key, counts));
    }
    out
}

/// Counts over the nodes that count for this pod: one step a node, however many pods there are.
fn own_counts(
    snapshot: &Snapshot,
    pod: &PodInfo,
    constraint: &Constraint,
    key: KeyId,
    id: TrackerId,
    all_keys: Option<&Vec<KeyId>>,
) -> DomainCounts {
    let topology = &snapshot.index.topology;
    let mut counts = DomainCounts::default();
    for node in snapshot.listed() {
        let domain = topology.domain(key, node.slot);
        let lacks = |k: &KeyId| topology.domain(*k, node.slot) == NO_DOMAIN;
        let excluded = all_keys.is_some_and(|keys| keys.iter().any(lacks));
        if domain == NO_DOMAIN || excluded || !constraint.includes_node(pod, node) {
            continue;
        }
        counts.open(domain);
        counts.add(domain, snapshot.index.trackers.by_node(id, node.slot));
    }
    counts
}

impl PodTopologySpread {
    fn try_pod(
        &self,
        cycle: &Cycle<'_>,
        state: &mut CycleState,
        pod: &PodInfo,
        node: &NodeInfo,
        amount: i64,
    ) {
        let Some(HardConstraints(all)) = state.get_mut::<HardConstraints>() else { return };
        let topology = &cycle.snapshot.index.topology;
        if all.iter().any(|h| topology.domain(h.key, node.slot) == NO_DOMAIN) {
            return;
        }
        let namespace = cycle.snapshot.index.namespace(pod.namespace());
        for hard in all {
            let counts = hard.constraint.query().matches(pod, namespace)
                && hard.constraint.includes_node(cycle.pod, node);
            if !counts {
                continue;
            }
            let domain = topology.domain(hard.key, node.slot);
            match hard.tried.iter_mut().find(|(d, _)| *d == domain) {
                Some((_, tried)) => *tried += amount,
                None => hard.tried.push((domain, amount)),
            }
        }
    }
}

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        names::POD_TOPOLOGY_SPREAD
    }

    fn points(&self) -> Points {
        let filter = Points::PRE_FILTER.and(Points::FILTER);
        filter.and(Points::PRE_SCORE).and(Points::SCORE)
    }

    fn events(&self) -> &'static [Interest] {
        &[
            (Resource::Pod, Action::ADD),
            (Resource::Pod, Action::POD_LABEL),
            (Resource::Pod, Action::POD_TOLERATION),
            (Resource::Pod, Action::DELETE),
            (Resource::Node, Action::ADD),
            (Resource::Node, Action::DELETE),
            (Resource::Node, Action::NODE_LABEL),
            (Resource::Node, Action::NODE_TAINT),
        ]
    }

    fn queueing_hint(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        let constraints = self.defaults.constraints(pod, true);
        match (event.pod(), event.node()) {
            (Some((old, new)), _) => pod_helps(pod, &constraints, old.as_ref(), new.as_ref()),
            (_, Some((old, new))) => node_helps(&constraints, old.as_deref(), new.as_deref()),
            _ => false,
        }
    }

    fn pre_filter(&self, cycle: &mut Preparing<'_>) -> PreFilter {
        let constraints = self.defaults.constraints(cycle.pod, true);
        if constraints.is_empty() {
            return PreFilter::Skip;
        }
        let counts = counts_for(cycle, &constraints, true);
        let namespace = cycle.snapshot.index.namespace(cycle.pod.namespace());
        let hard = |(constraint, (key, counts)): (Arc<Constraint>, (KeyId, Counts))| Hard {
            itself: i64::from(constraint.selects(cycle.pod, namespace)),
            constraint,
            key,
            counts,
            tried: Vec::new(),
        };
        let all = constraints.into_iter().zip(counts).map(hard).collect();
        cycle.state.set(HardConstraints(all));
        PreFilter::Continue
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Verdict {
        let Some(HardConstraints(all)) = cycle.state.get::<HardConstraints>() else {
            return Ok(());
        };
        for hard in all {
            let domain = cycle.snapshot.index.topology.domain(hard.key, node.slot);
            if domain == NO_DOMAIN {
                let why =
                    "node(s) didn't match pod topology spread constraints (missing required label)";
                return Err(reject(Code::Unresolvable, self.name(), why));
            }
            if hard.skew(cycle.snapshot, domain) > hard.constraint.max_skew {
                let why = "node(s) didn't match pod topology spread constraints";
                return Err(reject(Code::Unschedulable, self.name(), why));
            }
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

    fn pre_score(&self, cycle: &mut Preparing<'_>, nodes: &[u32]) -> bool {
        score::prepare(&self.defaults, cycle, nodes)
    }

    fn score(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
        score::score(cycle, node)
    }

    fn normalizes(&self) -> bool {
        true
    }

    fn normalize(&self, cycle: &Cycle<'_>, nodes: &[u32], scores: &mut [i64]) {
        score::normalize(cycle, nodes, scores);
    }

    fn gap(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Option<Gap> {
        let HardConstraints(all) = cycle.state.get::<HardConstraints>()?;
        let topology = &cycle.snapshot.index.topology;
        all.iter().find_map(|hard| {
            let domain = topology.domain(hard.key, node.slot);
            let key = &hard.constraint.topology_key;
            if domain == NO_DOMAIN {
                return Some(Gap { distance: 1.0, remedy: format!("label it with {key}") });
            }
            let skew = hard.skew(cycle.snapshot, domain);
            let beyond = skew - hard.constraint.max_skew;
            (beyond > 0).then(|| Gap {
                distance: 0.5 + beyond as f64 / 100.0,
                remedy: format!(
                    "allow a skew of {skew} over {key} (maxSkew is {})",
                    hard.constraint.max_skew
                ),
            })
        })
    }
}

/// Whether the other pod takes part in the spreading of `pod`.
fn involved(pod: &PodInfo, other: &Pod) -> bool {
    let nominated = other.status.as_ref().and_then(|s| s.nominated_node_name.as_deref());
    let scheduled = node_of(other).is_some() || nominated.is_some_and(|n| !n.is_empty());
    other.metadata.uid == pod.pod.metadata.uid
        || scheduled && other.metadata.namespace == pod.pod.metadata.namespace
}

fn pod_helps(
    pod: &PodInfo,
    constraints: &[Arc<Constraint>],
    old: Option<&Arc<Pod>>,
    new: Option<&Arc<Pod>>,
) -> bool {
    if [old, new].into_iter().flatten().any(|other| !involved(pod, other)) {
        return false;
    }
    let selected =
        |c: &Arc<Constraint>, other: &Pod| c.selects_labels(other.metadata.labels.as_ref());
    match (old, new) {
        (Some(old), Some(new)) => {
            let tolerations = |p: &Pod| p.spec.as_ref().and_then(|s| s.tolerations.clone());
            let own = new.metadata.uid == pod.pod.metadata.uid;
            let tolerates_more = own
                && tolerations(old) != tolerations(new)
                && constraints.iter().any(|c| c.honor_taints);
            tolerates_more || constraints.iter().any(|c| selected(c, old) != selected(c, new))
        }
        (Some(one), None) | (None, Some(one)) => constraints.iter().any(|c| selected(c, one)),
        (None, None) => false,
    }
}

fn node_helps(constraints: &[Arc<Constraint>], old: Option<&Node>, new: Option<&Node>) -> bool {
    let label =
        |node: &Node, key: &str| node.metadata.labels.as_ref().and_then(|l| l.get(key)).cloned();
    let has_all = |node: &Node| constraints.iter().all(|c| label(node, &c.topology_key).is_some());
    match (old, new) {
        (Some(old), Some(new)) => {
            let moved =
                |c: &Arc<Constraint>| label(old, &c.topology_key) != label(new, &c.topology_key);
            let taints = |n: &Node| n.spec.as_ref().and_then(|s| s.taints.clone());
            has_all(old) != has_all(new)
                || has_all(new) && (constraints.iter().any(moved) || taints(old) != taints(new))
        }
        (Some(one), None) | (None, Some(one)) => has_all(one),
        (None, None) => false,
    }
}
