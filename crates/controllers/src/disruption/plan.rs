//! A budget and its pods in, the status that says what may be disrupted out.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::meta::{name, seconds_between};
use crate::pods;

/// Seconds within which an eviction that was granted shows as a deletion (upstream's).
const DELETION_TIMEOUT: i64 = 120;
const ALLOWED: &str = "DisruptionAllowed";

/// What follows from a look at a budget.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    /// The status, if it must be written.
    pub(crate) status: Option<PodDisruptionBudgetStatus>,
    /// Seconds until an eviction that was granted must have shown.
    pub(crate) recheck: Option<i64>,
    /// Pods whose eviction was granted and that are still there.
    pub(crate) not_deleted: Vec<Arc<Pod>>,
}

/// Whether the budget is about a share of what the pods' controllers want; otherwise of the pods.
pub(crate) fn needs_scale(budget: &PodDisruptionBudget) -> bool {
    let Some(spec) = &budget.spec else { return false };
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

/// `expected` is the scale of the pods' controllers, or the number of pods.
pub(crate) fn judge(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    expected: i32,
    now: &Time,
) -> Result<Outcome, String> {
    let spec = budget.spec.clone().unwrap_or_default();
    let (desired, expected) = match (&spec.max_unavailable, &spec.min_available) {
        (Some(max), _) => ((expected - share(max, expected)?).max(0), expected),
        (None, Some(min)) => (share(min, expected)?, expected),
        (None, None) => (0, 0),
    };
    let mut outcome = Outcome::default();
    let disrupted = disrupted(budget, pods, now, &mut outcome);
    let healthy = pods.iter().filter(|pod| is_healthy(pod, &disrupted)).count();
    let healthy = i32::try_from(healthy).unwrap_or(i32::MAX);
    // A budget without pods allows nothing: its first pods may come before the next look.
    let allowed = if expected <= 0 { 0 } else { (healthy - desired).max(0) };
    let status = PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        expected_pods: Some(expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: Some(disrupted).filter(|d| !d.is_empty()),
        observed_generation: budget.metadata.generation,
        conditions: Some(conditions(budget, verdict(allowed), now)),
    };
    outcome.status = Some(status).filter(|status| !same(budget, status));
    Ok(outcome)
}

/// A selector as upstream's messages print it.
pub(crate) fn printed(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else { return "nil".into() };
    let labels: String =
        selector.match_labels.iter().flatten().map(|(k, v)| format!("{k}: {v},")).collect();
    let expressions = selector.match_expressions.iter().flatten().map(|e| {
        let values = e.values.as_deref().unwrap_or_default().join(",");
        format!(
            "LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},",
            e.key, e.operator
        )
    });
    let expressions: String = expressions.collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}

/// The status of a budget that cannot be judged.
pub(crate) fn refused(
    budget: &PodDisruptionBudget,
    why: &str,
    now: &Time,
) -> Option<PodDisruptionBudgetStatus> {
    let mut status = budget.status.clone().unwrap_or_default();
    status.disruptions_allowed = Some(0);
    status.conditions = Some(conditions(budget, ("False", "SyncFailed", why), now));
    (!same(budget, &status)).then_some(status)
}

/// A number, or percents of `of`, rounded up.
fn share(limit: &IntOrString, of: i32) -> Result<i32, String> {
    let text = match limit {
        IntOrString::Int(number) => return Ok(*number),
        IntOrString::String(text) => text,
    };
    let percent: Option<i64> = text.strip_suffix('%').and_then(|number| number.parse().ok());
    let percent = percent.ok_or_else(|| {
        format!("invalid value for IntOrString: invalid type: string is not a percentage: {text:?}")
    })?;
    let product = percent.saturating_mul(i64::from(of));
    Ok(i32::try_from(product.div_euclid(100) + i64::from(product.rem_euclid(100) > 0))
        .unwrap_or(i32::MAX))
}

/// Evictions granted that have not shown yet.
fn disrupted(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    now: &Time,
    outcome: &mut Outcome,
) -> BTreeMap<String, Time> {
    let granted = budget.status.as_ref().and_then(|status| status.disrupted_pods.as_ref());
    let mut waiting = BTreeMap::new();
    for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let Some(at) = granted.and_then(|all| all.get(name(&pod.metadata))) else { continue };
        let left = DELETION_TIMEOUT - seconds_between(at, now);
        if left < 0 {
            outcome.not_deleted.push(pod.clone());
            continue;
        }
        // A second later it is over.
        let left = left + 1;
        outcome.recheck = Some(outcome.recheck.map_or(left, |other| other.min(left)));
        waiting.insert(name(&pod.metadata).to_owned(), at.clone());
    }
    waiting
}

fn is_healthy(pod: &Pod, disrupted: &BTreeMap<String, Time>) -> bool {
    let ends = pod.metadata.deletion_timestamp.is_some();
    !ends && !disrupted.contains_key(name(&pod.metadata)) && pods::ready(pod)
}

fn verdict(allowed: i32) -> (&'static str, &'static str, &'static str) {
    if allowed > 0 { ("True", "SufficientPods", "") } else { ("False", "InsufficientPods", "") }
}

fn conditions(
    budget: &PodDisruptionBudget,
    (status, reason, message): (&str, &str, &str),
    now: &Time,
) -> Vec<Condition> {
    let old = budget.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let since = old.iter().find(|c| c.type_ == ALLOWED && c.status == status);
    let condition = Condition {
        type_: ALLOWED.into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        observed_generation: budget.metadata.generation,
        last_transition_time: since.map_or(now, |c| &c.last_transition_time).clone(),
    };
    let mut all = old;
    match all.iter_mut().find(|c| c.type_ == ALLOWED) {
        Some(present) => *present = condition,
        None => all.push(condition),
    }
    all
}

/// Whether the budget says this already; no disrupted pods may be written in two ways.
fn same(budget: &PodDisruptionBudget, status: &PodDisruptionBudgetStatus) -> bool {
    let Some(mut old) = budget.status.clone() else { return false };
    old.disrupted_pods = old.disrupted_pods.filter(|pods| !pods.is_empty());
    old == *status
}
