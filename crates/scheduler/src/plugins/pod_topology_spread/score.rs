//! The score of constraints that should hold: the fewer fellows in a node's domains, the better.

use std::collections::HashSet;
use std::sync::Arc;

use super::constraint::{Constraint, Defaults, HOSTNAME};
use super::{Counts, counts_for};
use crate::framework::{Cycle, MAX_NODE_SCORE, Preparing};
use crate::index::{KeyId, NO_DOMAIN, TrackerId};
use crate::node::NodeInfo;

#[derive(Debug, Clone)]
struct Soft {
    key: KeyId,
    max_skew: i64,
    /// The more domains, the more one pod in a domain says.
    weight: f64,
    counts: Where,
}

#[derive(Debug, Clone)]
enum Where {
    /// The node is the domain.
    Node(TrackerId),
    Domain(Counts),
}

#[derive(Debug, Clone)]
struct SoftConstraints {
    all: Vec<Soft>,
    /// Nodes that lack one of the keys are not scored.
    requires_all_keys: bool,
}

impl SoftConstraints {
    fn ignores(&self, cycle: &Cycle<'_>, slot: u32) -> bool {
        let lacks = |s: &Soft| cycle.snapshot.index.topology.domain(s.key, slot) == NO_DOMAIN;
        self.requires_all_keys && self.all.iter().any(lacks)
    }
}

/// Whether there is something to score.
pub(super) fn prepare(defaults: &Defaults, cycle: &mut Preparing<'_>, nodes: &[u32]) -> bool {
    let constraints = defaults.constraints(cycle.pod, false);
    if constraints.is_empty() {
        return false;
    }
    let requires_all_keys = defaults.requires_all_keys(cycle.pod);
    let keys: Vec<KeyId> =
        constraints.iter().map(|c| cycle.snapshot.key(&c.topology_key)).collect();
    let topology = &cycle.snapshot.index.topology;
    let has_all = |slot: &&u32| keys.iter().all(|k| topology.domain(*k, **slot) != NO_DOMAIN);
    let scored: Vec<u32> =
        nodes.iter().filter(|slot| !requires_all_keys || has_all(slot)).copied().collect();
    let sizes: Vec<usize> = constraints
        .iter()
        .zip(&keys)
        .map(|(constraint, key)| match constraint.topology_key.as_str() {
            HOSTNAME => scored.len(),
            _ => scored.iter().map(|s| topology.domain(*key, *s)).collect::<HashSet<_>>().len(),
        })
        .collect();
    let by_domain: Vec<Arc<Constraint>> =
        constraints.iter().filter(|c| c.topology_key != HOSTNAME).cloned().collect();
    let mut domains = if by_domain.is_empty() {
        Vec::new().into_iter()
    } else {
        counts_for(cycle, &by_domain, requires_all_keys).into_iter()
    };
    let mut all = Vec::new();
    for ((constraint, key), size) in constraints.iter().zip(keys).zip(sizes) {
        let counts = match constraint.topology_key.as_str() {
            HOSTNAME => Where::Node(cycle.snapshot.track(constraint.query(), &[])),
            _ => match domains.next() {
                Some((_, counts)) => Where::Domain(counts),
                None => continue,
            },
        };
        let weight = (size as f64 + 2.0).ln();
        all.push(Soft { key, max_skew: constraint.max_skew, weight, counts });
    }
    cycle.state.set(SoftConstraints { all, requires_all_keys });
    true
}

pub(super) fn score(cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
    let Some(soft) = cycle.state.get::<SoftConstraints>() else { return 0 };
    if soft.ignores(cycle, node.slot) {
        return 0;
    }
    let mut sum = 0.0;
    for constraint in &soft.all {
        let domain = cycle.snapshot.index.topology.domain(constraint.key, node.slot);
        if domain == NO_DOMAIN {
            continue;
        }
        let count = match &constraint.counts {
            Where::Node(id) => cycle.snapshot.index.trackers.by_node(*id, node.slot),
            Where::Domain(counts) => {
                counts.domains(cycle.snapshot, constraint.key).map_or(0, |c| c.get(domain))
            }
        };
        sum += count as f64 * constraint.weight + (constraint.max_skew - 1) as f64;
    }
    f64::round(sum) as i64
}

/// The least becomes the best; nodes that are not scored get nothing.
pub(super) fn normalize(cycle: &Cycle<'_>, nodes: &[u32], scores: &mut [i64]) {
    let Some(soft) = cycle.state.get::<SoftConstraints>() else { return };
    let ignored: Vec<bool> = nodes.iter().map(|slot| soft.ignores(cycle, *slot)).collect();
    let known = scores.iter().zip(&ignored).filter(|(_, ignored)| !**ignored);
    let known: Vec<i64> = known.map(|(score, _)| *score).collect();
    let least = known.iter().copied().min().unwrap_or(0);
    let most = known.iter().copied().max().unwrap_or(0);
    for (score, ignored) in scores.iter_mut().zip(ignored) {
        *score = match (ignored, most) {
            (true, _) => 0,
            (false, 0) => MAX_NODE_SCORE,
            (false, most) => MAX_NODE_SCORE * (most + least - *score) / most,
        };
    }
}
