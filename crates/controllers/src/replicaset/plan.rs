//! What a ReplicaSet's pods lack or are too many, which of them go first, and its status.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::meta::{Map, controller, matches, selector, uid};
use crate::pods::{active, available_in, node, phase, ready, ready_since};

/// Pods created or deleted in one pass at most (upstream's burstReplicas).
const BURST_MAX: usize = 500;
/// Lower goes first; default 0.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What the plan is made from.
pub(crate) struct State<'a> {
    pub(crate) set: &'a ReplicaSet,
    /// Pods this set manages and pods of its namespace that nobody manages.
    pub(crate) pods: &'a [Arc<Pod>],
    /// Pods of all sets with the same owner, this one's included.
    pub(crate) related: &'a [Arc<Pod>],
    /// Pods made that are not in view yet.
    pub(crate) unseen: usize,
    /// Pods asked to end, by uid, that look untouched still.
    pub(crate) doomed: &'a HashSet<String>,
}

/// Pods to take in, let go, make and end.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) adopt: Vec<Arc<Pod>>,
    pub(crate) release: Vec<Arc<Pod>>,
    pub(crate) create: usize,
    pub(crate) delete: Vec<Arc<Pod>>,
    /// The pods that count, adopted ones included.
    pub(crate) owned: Vec<Arc<Pod>>,
}

pub(crate) fn plan(state: &State<'_>) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &state.set.spec else { return plan };
    let selector = selector(&spec.selector);
    let leaving = state.set.metadata.deletion_timestamp.is_some();
    for pod in state.pods {
        let fits = matches(&selector, pod.metadata.labels.as_ref());
        match controller(&pod.metadata) {
            Some(owner) if owner.uid != uid(&state.set.metadata) => {}
            Some(_) if fits => plan.owned.push(pod.clone()),
            Some(_) => plan.release.push(pod.clone()),
            None if fits && active(pod) && !leaving => {
                plan.adopt.push(pod.clone());
                plan.owned.push(pod.clone());
            }
            None => {}
        }
    }
    if leaving {
        return plan;
    }
    let doomed = |pod: &Pod| state.doomed.contains(uid(&pod.metadata));
    let alive: Vec<Arc<Pod>> =
        plan.owned.iter().filter(|p| active(p) && !doomed(p)).cloned().collect();
    let have = alive.len() + state.unseen;
    let want = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    if have < want {
        plan.create = (want - have).min(BURST_MAX);
    } else {
        // Pods not in view cannot be chosen; they are when they show.
        let excess = (have - want).min(BURST_MAX).min(alive.len());
        plan.delete = ranked(alive, state.related).into_iter().take(excess).collect();
    }
    plan
}

/// The order in which pods go.
fn ranked(mut pods: Vec<Arc<Pod>>, related: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
    let mut crowd: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|p| active(p) && !node(p).is_empty()) {
        *crowd.entry(node(pod)).or_insert(0) += 1;
    }
    let phase_order = |pod: &Pod| match phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let cost = |pod: &Pod| {
        let text = pod.metadata.annotations.as_ref().and_then(|a| a.get(DELETION_COST));
        text.and_then(|t| t.parse::<i32>().ok()).unwrap_or(0)
    };
    pods.sort_by_cached_key(|pod| {
        let young = |t: Option<&Time>| Reverse(t.map_or(i64::MAX, |t| t.0.as_second()));
        (
            (!node(pod).is_empty(), phase_order(pod), ready(pod), cost(pod)),
            Reverse(crowd.get(node(pod)).copied().unwrap_or(0)),
            young(ready_since(pod)),
            Reverse(restarts(pod)),
            young(pod.metadata.creation_timestamp.as_ref()),
            uid(&pod.metadata).to_owned(),
        )
    });
    pods
}

fn restarts(pod: &Pod) -> i32 {
    let status = pod.status.as_ref();
    let all = status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    all.map(|c| c.restart_count).max().unwrap_or(0)
}

/// The status these pods make, and after how many seconds it may change by itself.
pub(crate) fn status(
    set: &ReplicaSet,
    owned: &[Arc<Pod>],
    failure: Option<(&'static str, String)>,
    now: &Time,
) -> (ReplicaSetStatus, Option<i64>) {
    let spec = set.spec.clone().unwrap_or_default();
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let wanted = spec.template.and_then(|t| t.metadata).and_then(|m| m.labels).unwrap_or_default();
    let alive: Vec<&Arc<Pod>> = owned.iter().filter(|p| active(p)).collect();
    let waits = || alive.iter().filter_map(|p| available_in(p, min_ready, now));
    let ending = owned.iter().filter(|p| p.metadata.deletion_timestamp.is_some());
    let status = ReplicaSetStatus {
        replicas: count(alive.len()),
        fully_labeled_replicas: some(
            alive.iter().filter(|p| has_all(p.metadata.labels.as_ref(), &wanted)).count(),
        ),
        ready_replicas: some(alive.iter().filter(|p| ready(p)).count()),
        available_replicas: some(waits().filter(|wait| *wait <= 0).count()),
        terminating_replicas: Some(count(ending.count())),
        observed_generation: set.metadata.generation,
        conditions: conditions(set, failure, now),
    };
    (status, waits().filter(|wait| *wait > 0).min())
}

fn conditions(
    set: &ReplicaSet,
    failure: Option<(&'static str, String)>,
    now: &Time,
) -> Option<Vec<ReplicaSetCondition>> {
    let present = set.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let is_failure = |c: &ReplicaSetCondition| c.type_ == "ReplicaFailure";
    let known = present.iter().any(is_failure);
    let mut conditions = present;
    match failure {
        Some((reason, message)) if !known => conditions.push(ReplicaSetCondition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: Some(now.clone()),
        }),
        Some(_) => {}
        None => conditions.retain(|c| !is_failure(c)),
    }
    Some(conditions).filter(|c| !c.is_empty())
}

fn has_all(labels: Option<&Map>, wanted: &Map) -> bool {
    wanted.iter().all(|(key, value)| labels.and_then(|l| l.get(key)) == Some(value))
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// Counts are absent rather than 0, as upstream's are.
fn some(n: usize) -> Option<i32> {
    Some(count(n)).filter(|n| *n > 0)
}

/// Whether the statuses say the same; 0 and absent do.
pub(crate) fn same(old: Option<&ReplicaSetStatus>, new: &ReplicaSetStatus) -> bool {
    let mut old = old.cloned().unwrap_or_default();
    for field in
        [&mut old.fully_labeled_replicas, &mut old.ready_replicas, &mut old.available_replicas]
    {
        *field = field.filter(|n| *n > 0);
    }
    old.terminating_replicas = Some(old.terminating_replicas.unwrap_or(0));
    old.conditions = old.conditions.filter(|c| !c.is_empty());
    old == *new
}
