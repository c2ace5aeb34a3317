//! Which pods of a node would have to end, and on which node that costs least.

use std::cmp::{Ordering, Reverse};
use std::sync::Arc;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use super::NO_VICTIMS;
use crate::framework::{Code, Cycle, CycleState, Filters, Status, Victims, reject};
use crate::labels::Selector;
use crate::node::NodeInfo;
use crate::plugins::names;
use crate::pod::PodInfo;

/// The node as it would be without some of its pods.
struct Trial<'a> {
    cycle: &'a Cycle<'a>,
    filters: &'a dyn Filters,
    state: CycleState,
    node: NodeInfo,
}

impl Trial<'_> {
    fn remove(&mut self, pod: &Arc<PodInfo>) {
        self.node.remove_same(pod);
        self.filters.remove_pod(self.cycle, &mut self.state, pod, &self.node);
    }

    fn add(&mut self, pod: &Arc<PodInfo>) {
        self.node.add(pod.clone());
        self.filters.add_pod(self.cycle, &mut self.state, pod, &self.node);
    }

    fn check(&self) -> Result<(), Arc<Status>> {
        let cycle = Cycle { state: &self.state, ..*self.cycle };
        self.filters.check(&cycle, &self.node)
    }

    /// Whether the pod can stay although the other comes.
    fn reprieve(&mut self, pod: &Arc<PodInfo>) -> bool {
        self.add(pod);
        let stays = self.check().is_ok();
        if !stays {
            self.remove(pod);
        }
        stays
    }
}

/// The fewest and least important pods whose end would let the pod onto the node.
pub(super) fn victims_on(
    cycle: &Cycle<'_>,
    filters: &dyn Filters,
    node: &NodeInfo,
    budgets: &[Arc<PodDisruptionBudget>],
) -> Result<Victims, Arc<Status>> {
    let priority = cycle.pod.priority();
    let mut lower: Vec<Arc<PodInfo>> =
        node.pods.iter().filter(|p| p.priority() < priority).cloned().collect();
    if lower.is_empty() {
        return Err(reject(Code::Unresolvable, names::DEFAULT_PREEMPTION, NO_VICTIMS));
    }
    let mut trial = Trial { cycle, filters, state: cycle.state.clone(), node: node.clone() };
    lower.iter().for_each(|pod| trial.remove(pod));
    trial.check()?;
    lower.sort_by(by_importance);
    let (protected, free) = split_by_budgets(lower, budgets);
    let mut pods = Vec::new();
    let mut spare = |pods: &mut Vec<Arc<PodInfo>>, candidates: Vec<Arc<PodInfo>>| {
        let before = pods.len();
        pods.extend(candidates.into_iter().filter(|pod| !trial.reprieve(pod)));
        pods.len() - before
    };
    let violations = spare(&mut pods, protected);
    spare(&mut pods, free);
    if pods.is_empty() {
        let why = format!("expected at least one victim pod on node \"{}\"", node.name);
        return Err(reject(Code::Error, names::DEFAULT_PREEMPTION, why));
    }
    pods.sort_by(by_importance);
    Ok(Victims { node: node.name.to_string(), pods, violations })
}

/// The most important first: by priority, then the longest running.
fn by_importance(a: &Arc<PodInfo>, b: &Arc<PodInfo>) -> Ordering {
    let rank = |pod: &PodInfo| (Reverse(pod.priority()), pod.started());
    rank(a).cmp(&rank(b)).then_with(|| a.uid().cmp(b.uid()))
}

/// Those whose end would break a budget, if the ends come in this order, and the others.
fn split_by_budgets(
    pods: Vec<Arc<PodInfo>>,
    budgets: &[Arc<PodDisruptionBudget>],
) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let allowed = |b: &Arc<PodDisruptionBudget>| b.status.as_ref()?.disruptions_allowed;
    let mut left: Vec<i32> = budgets.iter().map(|b| allowed(b).unwrap_or(0)).collect();
    let selectors: Vec<Selector> = budgets
        .iter()
        .map(|b| Selector::of(b.spec.as_ref().and_then(|s| s.selector.as_ref())))
        .collect();
    pods.into_iter().partition(|pod| {
        let mut breaks = false;
        for ((budget, selector), left) in budgets.iter().zip(&selectors).zip(&mut left) {
            let disrupted = budget.status.as_ref().and_then(|s| s.disrupted_pods.as_ref());
            let counts = budget.metadata.namespace.as_deref() == Some(pod.namespace())
                && pod.labels().is_some_and(|l| !l.is_empty())
                && !selector.is_empty()
                && selector.matches(pod.labels())
                // It is on its way out already, and was counted.
                && !disrupted.is_some_and(|d| d.contains_key(pod.name()));
            if counts {
                *left -= 1;
                breaks |= *left < 0;
            }
        }
        breaks
    })
}

/// Whether the pod ends because a scheduler wants its room.
pub(super) fn is_preempted(pod: &PodInfo) -> bool {
    let conditions = pod.pod.status.as_ref().and_then(|s| s.conditions.as_deref());
    let target = conditions.unwrap_or_default().iter().find(|c| c.type_ == "DisruptionTarget");
    let preempted = target.is_some_and(|c| {
        c.status == "True" && c.reason.as_deref() == Some("PreemptionByScheduler")
    });
    pod.terminating() && preempted
}

/// Fewest broken budgets, then the least important highest victim, then the least importance in sum, then
/// the fewest victims, then those that started latest.
pub(super) fn cheapest(candidates: Vec<Victims>) -> Option<Victims> {
    candidates.into_iter().min_by_key(|victims| {
        let priorities = || victims.pods.iter().map(|p| p.priority());
        let highest = priorities().max().unwrap_or(i32::MIN);
        // Above zero, so that fewer of negative priority are not dearer than more.
        let sum: i64 = priorities().map(|p| i64::from(p) + i64::from(i32::MAX) + 1).sum();
        let top = victims.pods.iter().filter(|p| p.priority() == highest);
        let earliest = top.map(|p| p.started()).min();
        (victims.violations, highest, sum, victims.pods.len(), Reverse(earliest))
    })
}
