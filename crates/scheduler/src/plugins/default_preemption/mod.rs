//! DefaultPreemption: the least important pods whose end would make room for a more important one.
//!
//! A bounded number of candidate nodes is tried, each on a copy of that node alone; what the pods there
//! mean to plugins that count over the cluster is told to a copy of the cycle's state. Victims that a
//! disruption budget protects are spared first.

mod select;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use super::names;
use crate::event::{Action, ClusterEvent, Interest, Resource};
use crate::framework::{
    Code, Cycle, Filters, NodeStatuses, Plugin, Points, PostFilter, Status, Victims, reject,
};
use crate::pod::PodInfo;
use crate::store::Listers;

const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";
const NO_VICTIMS: &str = "No preemption victims found for incoming pod";

#[derive(Debug)]
pub(crate) struct DefaultPreemption {
    pub(crate) listers: Arc<Listers>,
    /// At least this share of the nodes, in percent, is tried for candidates,
    pub(crate) candidates_percentage: usize,
    /// and at least so many.
    pub(crate) candidates_min: usize,
    /// Where the next search begins, so that not always the same nodes pay.
    next: AtomicUsize,
}

impl DefaultPreemption {
    pub(crate) fn new(
        listers: Arc<Listers>,
        candidates_percentage: usize,
        candidates_min: usize,
    ) -> DefaultPreemption {
        let next = AtomicUsize::new(0);
        DefaultPreemption { listers, candidates_percentage, candidates_min, next }
    }

    fn candidates_wanted(&self, nodes: usize) -> usize {
        (nodes * self.candidates_percentage / 100).max(self.candidates_min).min(nodes)
    }

    /// Candidates on nodes where the end of pods may help, and why the other nodes are none.
    fn search(
        &self,
        cycle: &Cycle<'_>,
        filters: &dyn Filters,
        statuses: &NodeStatuses,
        budgets: &[Arc<PodDisruptionBudget>],
    ) -> Result<(Vec<Victims>, Vec<Arc<Status>>), String> {
        let potential = potential_nodes(cycle, statuses);
        let wanted = self.candidates_wanted(potential.len());
        let start = self.next.fetch_add(1, Ordering::Relaxed) * 7919;
        let (mut clean, mut violating, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        let none: Arc<Status> = reject(Code::Unresolvable, names::DEFAULT_PREEMPTION, NO_VICTIMS);
        for i in 0..potential.len() {
            let node = cycle.snapshot.node(potential[(start + i) % potential.len()]);
            if node.least_priority >= cycle.pod.priority() {
                refused.push(none.clone());
                continue;
            }
            match select::victims_on(cycle, filters, node, budgets) {
                Ok(found) if found.violations == 0 => clean.push(found),
                Ok(found) => violating.push(found),
                Err(status) if status.code == Code::Error => return Err(status.message()),
                Err(status) => refused.push(status),
            }
            if !clean.is_empty() && clean.len() + violating.len() >= wanted {
                break;
            }
        }
        clean.append(&mut violating);
        Ok((clean, refused))
    }
}

/// Nodes that were rejected for a reason that the end of pods may lift.
fn potential_nodes(cycle: &Cycle<'_>, statuses: &NodeStatuses) -> Vec<u32> {
    let helps = |status: &Arc<Status>| status.code == Code::Unschedulable;
    if statuses.absent.as_ref().is_some_and(helps) {
        return cycle.snapshot.slots().to_vec();
    }
    statuses.explicit.iter().filter(|(_, s)| helps(s)).map(|(slot, _)| *slot).collect()
}

/// Why the pod may not preempt now.
fn ineligible(cycle: &Cycle<'_>, statuses: &NodeStatuses) -> Option<&'static str> {
    let pod = cycle.pod;
    if pod.spec().and_then(|s| s.preemption_policy.as_deref()) == Some("Never") {
        return Some("not eligible due to preemptionPolicy=Never.");
    }
    let slot = cycle.snapshot.slot(pod.nominated_node()?)?;
    if statuses.of(slot).is_some_and(|s| s.code == Code::Unresolvable) {
        return None;
    }
    // Victims of an earlier round are still ending.
    let ending = |p: &Arc<PodInfo>| p.priority() < pod.priority() && select::is_preempted(p);
    let waits = cycle.snapshot.node(slot).pods.iter().any(ending);
    waits.then_some("not eligible due to a terminating pod on the nominated node.")
}

impl Plugin for DefaultPreemption {
    fn name(&self) -> &'static str {
        names::DEFAULT_PREEMPTION
    }

    fn points(&self) -> Points {
        Points::POST_FILTER.and(Points::PRE_ENQUEUE)
    }

    fn events(&self) -> &'static [Interest] {
        &[(Resource::Pod, Action::DELETE)]
    }

    fn queueing_hint(&self, _: &PodInfo, _: &ClusterEvent) -> bool {
        // The filters that rejected the pod know better.
        false
    }

    fn post_filter(
        &self,
        cycle: &Cycle<'_>,
        filters: &dyn Filters,
        statuses: &NodeStatuses,
    ) -> PostFilter {
        let unschedulable = |reason: String, clear_nomination| PostFilter::Unschedulable {
            reason: Cow::Owned(format!("preemption: {reason}")),
            clear_nomination,
        };
        if let Some(why) = ineligible(cycle, statuses) {
            return unschedulable(why.into(), false);
        }
        let budgets = self.listers.budgets.list();
        let (candidates, refused) = match self.search(cycle, filters, statuses, &budgets) {
            Ok(found) => found,
            Err(why) => return PostFilter::Error(why),
        };
        if candidates.is_empty() {
            let total = cycle.snapshot.len();
            return unschedulable(nobody_helps(total, &refused), true);
        }
        let extended = filters.extend_preemption(cycle.pod, candidates, cycle.snapshot);
        match extended.map(select::cheapest) {
            Ok(Some(victims)) => PostFilter::Nominate(victims),
            Ok(None) => unschedulable("no candidate node for preemption".into(), false),
            Err(why) => PostFilter::Error(why),
        }
    }
}

fn nobody_helps(total: usize, refused: &[Arc<Status>]) -> String {
    let mut tally = crate::tally::Tally::default();
    refused.iter().for_each(|status| tally.add(&status.reasons, 1));
    if total > refused.len() {
        tally.add(&[Cow::Borrowed(NOT_HELPFUL)], total - refused.len());
    }
    format!("0/{total} nodes are available: {}", tally.sentence())
}
