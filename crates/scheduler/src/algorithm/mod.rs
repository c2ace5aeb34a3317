//! One scheduling cycle: a pod and a snapshot in, a node or the reasons against all nodes out.

mod explain;
mod failure;
mod memo;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use crate::figures;
use crate::framework::{
    Code, Cycle, CycleState, Filters, NodeStatuses, Plugin, PostFilter, Preparing, Status, Verdict,
};
use crate::pod::PodInfo;
use crate::profile::{Filtering, Narrowed, Profile};
use crate::snapshot::Snapshot;

pub(crate) use failure::{Failure, FitError, NO_NODES};
pub(crate) use memo::Memo;

/// Fewer nodes than this are all looked at, and never fewer are looked for (upstream's
/// `minFeasibleNodesToFind`).
const NODES_MIN: usize = 100;
/// The share of a large cluster's nodes that are looked for, in percent (upstream's
/// `minFeasibleNodesPercentageToFind`).
const PERCENTAGE_MIN: usize = 5;

/// Where a pod goes.
#[derive(Debug)]
pub(crate) struct Decision {
    pub(crate) slot: u32,
    pub(crate) node: Arc<str>,
    pub(crate) state: CycleState,
}

/// What one planner keeps between cycles of a profile.
#[derive(Debug, Default)]
pub(crate) struct Search {
    memo: Memo,
    /// Where the next search for feasible nodes begins.
    next_start: usize,
}

impl Search {
    /// The best node for the pod.
    pub(crate) fn schedule(
        &mut self,
        profile: &Profile,
        snapshot: &mut Snapshot,
        pod: &Arc<PodInfo>,
    ) -> Result<Decision, Failure> {
        if snapshot.len() == 0 {
            return Err(Failure::NoNodes);
        }
        let mut state = CycleState::default();
        let mut statuses = NodeStatuses::default();
        let prepared = profile.pre_filter(&mut Preparing { pod, snapshot, state: &mut state });
        let narrowed = match prepared {
            Ok(narrowed) => narrowed,
            Err(status) if status.code == Code::Error => {
                return Err(Failure::Error(format!(
                    "running PreFilter plugin \"{}\": {}",
                    status.plugin,
                    status.message()
                )));
            }
            Err(status) => {
                statuses.absent = Some(status.clone());
                let mut fit = FitError::new(snapshot.len(), &statuses);
                fit.pre_filter_message = status.message();
                return Err(post_filter(profile, snapshot, pod, &state, statuses, fit));
            }
        };
        let cycle = Cycle { pod, snapshot, state: &state };
        let start = Instant::now();
        let feasible = self.feasible(profile, &cycle, narrowed, &mut statuses);
        // That no node passes is an outcome like others.
        let status = if feasible.is_ok() { "Success" } else { "Error" };
        figures::ran("Filter", status, &profile.name, start);
        let feasible = feasible?;
        match feasible.as_slice() {
            [] => {
                let fit = FitError::new(snapshot.len(), &statuses);
                Err(post_filter(profile, snapshot, pod, &state, statuses, fit))
            }
            [only] => Ok(decided(snapshot, *only, state)),
            _ => {
                let start = Instant::now();
                let best = self.best(profile, snapshot, pod, &mut state, &feasible);
                let status = if best.is_ok() { "Success" } else { "Error" };
                figures::ran("Score", status, &profile.name, start);
                let best = best?;
                Ok(decided(snapshot, best, state))
            }
        }
    }

    /// Nodes that pass all filters; the others' statuses are noted.
    fn feasible(
        &mut self,
        profile: &Profile,
        cycle: &Cycle<'_>,
        narrowed: Narrowed,
        statuses: &mut NodeStatuses,
    ) -> Result<Vec<u32>, Failure> {
        if let Some(slot) = cycle.pod.nominated_node().and_then(|n| cycle.snapshot.slot(n)) {
            // Room was made for the pod there.
            let found = self.look(profile, cycle, &[slot], 1, statuses)?;
            let found = profile.extenders.filter(cycle, found, statuses).map_err(Failure::Error)?;
            if !found.is_empty() {
                return Ok(found);
            }
            statuses.explicit.clear();
        }
        let all = cycle.snapshot.slots();
        let (nodes, limited) = match narrowed {
            Narrowed::All => {
                let start = self.next_start % all.len();
                ((&all[start..], &all[..start]), None)
            }
            Narrowed::To(names, plugins) => {
                let why = format!("node(s) didn't satisfy plugin(s) [{}]", plugins.join(" "));
                let plugin = plugins.first().copied().unwrap_or("");
                let reasons = vec![why.into()];
                let status = Status { code: Code::Unresolvable, plugin, reasons };
                statuses.absent = Some(Arc::new(status));
                let named = names.iter().filter_map(|name| cycle.snapshot.slot(name));
                ((&[][..], &[][..]), Some(named.collect::<Vec<u32>>()))
            }
        };
        let total = limited.as_ref().map_or(all.len(), Vec::len);
        let wanted = match profile.order.score.is_empty() && !profile.extenders.any() {
            true => 1,
            false => nodes_to_find(profile.percentage_of_nodes_to_score, total),
        };
        let mut found = match &limited {
            Some(named) => self.look(profile, cycle, named, wanted, statuses)?,
            None => self.look(profile, cycle, nodes.0, wanted, statuses)?,
        };
        if found.len() < wanted && limited.is_none() {
            let rest = wanted - found.len();
            found.extend(self.look(profile, cycle, nodes.1, rest, statuses)?);
        }
        self.next_start = (self.next_start + found.len() + statuses.explicit.len()) % all.len();
        profile.extenders.filter(cycle, found, statuses).map_err(Failure::Error)
    }

    /// The first `wanted` of `slots` that pass.
    fn look(
        &mut self,
        profile: &Profile,
        cycle: &Cycle<'_>,
        slots: &[u32],
        wanted: usize,
        statuses: &mut NodeStatuses,
    ) -> Result<Vec<u32>, Failure> {
        let mut found = Vec::new();
        let mut checks = Checks::new(profile, cycle, &mut self.memo);
        for slot in slots {
            match checks.check(cycle, *slot) {
                Ok(()) => {
                    found.push(*slot);
                    if found.len() >= wanted {
                        break;
                    }
                }
                Err(status) if status.code == Code::Error => {
                    return Err(Failure::Error(format!(
                        "running \"{}\" filter plugin: {}",
                        status.plugin,
                        status.message()
                    )));
                }
                Err(status) => statuses.explicit.push((*slot, status)),
            }
        }
        Ok(found)
    }

    fn best(
        &mut self,
        profile: &Profile,
        snapshot: &mut Snapshot,
        pod: &Arc<PodInfo>,
        state: &mut CycleState,
        nodes: &[u32],
    ) -> Result<u32, Failure> {
        let totals = self.totals(profile, snapshot, pod, state, nodes);
        // Among equals the first found: the search's moving start spreads them.
        let best = totals.iter().enumerate().max_by_key(|(i, total)| (**total, usize::MAX - i));
        best.map(|(i, _)| nodes[i]).ok_or(Failure::NoNodes)
    }

    /// The weighted sum of all scores, node by node.
    fn totals(
        &mut self,
        profile: &Profile,
        snapshot: &mut Snapshot,
        pod: &Arc<PodInfo>,
        state: &mut CycleState,
        nodes: &[u32],
    ) -> Vec<i64> {
        let mut local = Vec::new();
        let mut others = Vec::new();
        for (at, weight) in &profile.order.score {
            let plugin = &profile.plugins[*at];
            if !plugin.pre_score(&mut Preparing { pod, snapshot, state }, nodes) {
                continue;
            }
            profile.counts.pre_score[*at].add(1);
            // Of each node, though what is remembered is not computed again.
            profile.counts.score[*at].add(nodes.len());
            match plugin.is_node_local() && !plugin.normalizes() {
                true => local.push((plugin, *weight)),
                false => others.push((plugin, *weight)),
            }
        }
        let cycle = Cycle { pod, snapshot, state };
        let mut totals = self.memo.scores(&cycle, nodes, &local);
        for (plugin, weight) in others {
            add_scores(&mut totals, &cycle, nodes, plugin, weight);
        }
        profile.extenders.prioritize(&cycle, nodes, &mut totals);
        totals
    }
}

fn add_scores(
    totals: &mut [i64],
    cycle: &Cycle<'_>,
    nodes: &[u32],
    plugin: &Arc<dyn Plugin>,
    weight: i64,
) {
    let score = |slot: &u32| plugin.score(cycle, cycle.snapshot.node(*slot));
    let mut scores: Vec<i64> = nodes.iter().map(score).collect();
    plugin.normalize(cycle, nodes, &mut scores);
    totals.iter_mut().zip(scores).for_each(|(total, score)| *total += weight * score);
}

fn decided(snapshot: &Snapshot, slot: u32, state: CycleState) -> Decision {
    Decision { slot, node: snapshot.node(slot).name.clone(), state }
}

/// The filters in two parts: those whose answer is remembered for pods of one kind, and the rest.
struct Checks<'a> {
    profile: &'a Profile,
    remembered: Vec<Filtering<'a>>,
    rest: Vec<Filtering<'a>>,
    memo: memo::Verdicts<'a>,
}

impl<'a> Checks<'a> {
    fn new(profile: &'a Profile, cycle: &Cycle<'a>, memo: &'a mut Memo) -> Checks<'a> {
        let mut remembered: Vec<Filtering<'_>> = profile.filters(cycle.state).collect();
        let local = remembered.iter().take_while(|f| f.plugin.is_node_local()).count();
        let rest = remembered.split_off(local);
        Checks { profile, remembered, rest, memo: memo.verdicts(cycle.pod) }
    }

    fn check(&mut self, cycle: &Cycle<'_>, slot: u32) -> Verdict {
        let nominated = &cycle.snapshot.nominated;
        if !nominated.is_empty() {
            let node = cycle.snapshot.node(slot);
            if nominated.ahead_of(cycle.pod, &node.name).next().is_some() {
                return self.profile.check(cycle, node);
            }
        }
        let remembered = &self.remembered;
        self.memo.check(cycle.snapshot, slot, || {
            let node = cycle.snapshot.node(slot);
            remembered.iter().try_for_each(|filter| filter.run(cycle, node))
        })?;
        if self.rest.is_empty() {
            return Ok(());
        }
        let node = cycle.snapshot.node(slot);
        self.rest.iter().try_for_each(|filter| filter.run(cycle, node))
    }
}

/// How many feasible nodes are enough: all up to 100, then 50 % falling to 5 % with size.
fn nodes_to_find(percentage: usize, total: usize) -> usize {
    if total < NODES_MIN {
        return total;
    }
    let percentage = match percentage {
        0 => 50usize.saturating_sub(total / 125).max(PERCENTAGE_MIN),
        given => given,
    };
    (total * percentage / 100).max(NODES_MIN).min(total)
}

/// Asks the PostFilter plugins for help, and completes the failure with what they say.
fn post_filter(
    profile: &Profile,
    snapshot: &Snapshot,
    pod: &Arc<PodInfo>,
    state: &CycleState,
    statuses: NodeStatuses,
    mut fit: FitError,
) -> Failure {
    let cycle = Cycle { pod, snapshot, state };
    let start = Instant::now();
    let (mut reasons, mut nominated) = (Vec::new(), None);
    for plugin in profile.post_filters() {
        match plugin.post_filter(&cycle, profile, &statuses) {
            PostFilter::Nominate(victims) => {
                reasons.clear();
                nominated = Some(victims);
                break;
            }
            PostFilter::Unschedulable { reason, clear_nomination } => {
                reasons.extend(Some(reason.into_owned()).filter(|r| !r.is_empty()));
                fit.clear_nomination |= clear_nomination;
            }
            PostFilter::Error(why) => {
                reasons = vec![why];
                fit.clear_nomination = false;
                break;
            }
        }
    }
    let status = if nominated.is_some() { "Success" } else { "Unschedulable" };
    figures::ran("PostFilter", status, &profile.name, start);
    fit.post_filter_message = reasons.join(", ");
    fit.why = match &nominated {
        Some(victims) => explain::preemption(victims),
        None => explain::nearest(profile, &cycle, &statuses),
    };
    fit.nominated = nominated;
    Failure::Fit(Box::new(fit))
}

#[cfg(test)]
impl Search {
    /// Forgets all but where the next search begins.
    pub(crate) fn forget(&mut self) {
        self.memo = Memo::default();
    }

    /// The total score of a node among all that would do.
    pub(crate) fn total_of(
        &mut self,
        profile: &Profile,
        snapshot: &mut Snapshot,
        pod: &Arc<PodInfo>,
        name: &str,
    ) -> i64 {
        let mut state = CycleState::default();
        let prepared = profile.pre_filter(&mut Preparing { pod, snapshot, state: &mut state });
        let Ok(narrowed) = prepared else { return i64::MIN };
        let mut statuses = NodeStatuses::default();
        let cycle = Cycle { pod, snapshot, state: &state };
        let Ok(nodes) = self.feasible(profile, &cycle, narrowed, &mut statuses) else {
            return i64::MIN;
        };
        let totals = self.totals(profile, snapshot, pod, &mut state, &nodes);
        let slot = snapshot.slot(name).expect("the node is there");
        let at = nodes.iter().position(|s| *s == slot).expect("the node would do");
        totals[at]
    }
}
