//! Merges the hints of all providers into the best choice common to them.

use super::Topology;
use crate::mask::{Hint, NumaMask};
use crate::provider::Hints;

/// Most combinations of hints that are looked at. Upstream has no limit; eight NUMA nodes and three resources
/// make 16 million.
const COMBINATIONS_MAX: usize = 1 << 25;

/// One list a resource; who needs nothing agrees with everything, and an empty list with nothing.
pub(super) fn flatten(providers: &[Hints]) -> Vec<Vec<Hint>> {
    let mut all = Vec::new();
    for hints in providers {
        if hints.is_empty() {
            all.push(vec![Hint::any(true)]);
        }
        all.extend(hints.values().map(|list| match list {
            None => vec![Hint::any(true)],
            Some(list) if list.is_empty() => vec![Hint::any(false)],
            Some(list) => list.clone(),
        }));
    }
    all
}

/// Only preferred hints of one node.
pub(super) fn single_nodes(hints: &[Vec<Hint>]) -> Vec<Vec<Hint>> {
    let fits = |hint: &&Hint| hint.preferred && hint.nodes.is_none_or(|nodes| nodes.count() == 1);
    hints.iter().map(|list| list.iter().filter(fits).copied().collect()).collect()
}

/// The size of the narrowest hint of the resource that needs most nodes.
fn widest_need(hints: &[Vec<Hint>]) -> usize {
    let narrowest = |list: &Vec<Hint>| {
        let masks = list.iter().filter_map(|hint| hint.nodes);
        masks.map(NumaMask::count).min()
    };
    hints.iter().filter_map(narrowest).max().unwrap_or(0)
}

fn merged(all: NumaMask, combination: &[Hint]) -> (NumaMask, bool) {
    let masks = || combination.iter().filter_map(|hint| hint.nodes);
    let nodes = masks().fold(all, NumaMask::and);
    let first = masks().next();
    let same = masks().all(|mask| Some(mask) == first);
    (nodes, same && combination.iter().all(|hint| hint.preferred))
}

impl Topology {
    pub(super) fn merge(&self, hints: &[Vec<Hint>]) -> Hint {
        let none = Hint::new(self.all(), false);
        let sizes = hints.iter().map(Vec::len);
        let count = sizes.into_iter().try_fold(1usize, usize::checked_mul);
        if count.is_none_or(|count| count > COMBINATIONS_MAX) {
            tracing::warn!("too many combinations of topology hints; none is preferred");
            return none;
        }
        let need = widest_need(hints);
        let mut best: Option<(NumaMask, bool)> = None;
        let mut combination = Vec::with_capacity(hints.len());
        self.visit(hints, need, &mut combination, &mut best);
        best.map_or(none, |(nodes, preferred)| Hint::new(nodes, preferred))
    }

    fn visit(
        &self,
        rest: &[Vec<Hint>],
        need: usize,
        combination: &mut Vec<Hint>,
        best: &mut Option<(NumaMask, bool)>,
    ) {
        let Some((list, rest)) = rest.split_first() else {
            let candidate = merged(self.all(), combination);
            if !candidate.0.is_empty()
                && best.is_none_or(|current| self.beats(current, candidate, need))
            {
                *best = Some(candidate);
            }
            return;
        };
        for hint in list {
            combination.push(*hint);
            self.visit(rest, need, combination, best);
            combination.pop();
        }
    }

    /// Whether the candidate is better than the best one so far. Among those not preferred, the one nearest to
    /// the size that is needed wins.
    fn beats(&self, current: (NumaMask, bool), candidate: (NumaMask, bool), need: usize) -> bool {
        let better = candidate.0 != current.0 && self.is_better(candidate.0, current.0);
        if current.1 != candidate.1 {
            return candidate.1;
        }
        if current.1 {
            return better;
        }
        let (now, then) = (current.0.count(), candidate.0.count());
        if now > need {
            return better;
        }
        if now == need {
            return then == need && better;
        }
        if then > need {
            return false;
        }
        then == need || then > now || then == now && better
    }
}
