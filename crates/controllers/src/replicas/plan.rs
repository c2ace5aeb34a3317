//! How many pods to create, which to delete, and the status.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Deletions;
use super::owner::ReplicaOwner;
use crate::harness::rank;
use crate::meta::{Map, uid};
use crate::pods::{active, available_in, ready};

/// Pods created or deleted in one pass at most (upstream's burstReplicas).
const BURST_MAX: usize = 500;

/// What the plan is made from.
pub(crate) struct State<'a, O> {
    pub(crate) owner: &'a O,
    pub(crate) owned: &'a [Arc<Pod>],
    /// Pods of all owners with the same controller, this one's included.
    pub(crate) related: &'a [Arc<Pod>],
    /// Pods created that are not in view yet.
    pub(crate) creations: usize,
    /// Pods deleted that are still in view as if they were not.
    pub(crate) deletions: &'a Deletions,
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) create: usize,
    pub(crate) delete: Vec<Arc<Pod>>,
}

pub(crate) fn plan<O: ReplicaOwner>(state: &State<'_, O>) -> Plan {
    let mut plan = Plan::default();
    if state.owner.metadata().deletion_timestamp.is_some() {
        return plan;
    }
    let going = |pod: &Pod| state.deletions.contains(uid(&pod.metadata));
    let alive: Vec<Arc<Pod>> =
        state.owned.iter().filter(|p| active(p) && !going(p)).cloned().collect();
    let have = alive.len() + state.creations;
    let want = usize::try_from(state.owner.replicas()).unwrap_or(0);
    if have < want {
        plan.create = (want - have).min(BURST_MAX);
    } else {
        // Pods that are not in view cannot be chosen; they are when they show.
        let excess = (have - want).min(BURST_MAX).min(alive.len());
        plan.delete = rank(alive, state.related).into_iter().take(excess).collect();
    }
    plan
}

/// The status these pods make, and after how many seconds it may change by itself.
pub(crate) fn status<O: ReplicaOwner>(
    owner: &O,
    owned: &[Arc<Pod>],
    failure: Option<(&'static str, String)>,
    now: &Time,
) -> (ReplicaSetStatus, Option<i64>) {
    let min_ready = owner.min_ready_seconds();
    let wanted = owner.template().metadata.and_then(|m| m.labels).unwrap_or_default();
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
        observed_generation: owner.metadata().generation,
        conditions: conditions(owner.status().conditions, failure, now),
    };
    (status, waits().filter(|wait| *wait > 0).min())
}

fn conditions(
    present: Option<Vec<ReplicaSetCondition>>,
    failure: Option<(&'static str, String)>,
    now: &Time,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions = present.unwrap_or_default();
    let is_failure = |c: &ReplicaSetCondition| c.type_ == "ReplicaFailure";
    match failure {
        Some(_) if conditions.iter().any(is_failure) => {}
        Some((reason, message)) => conditions.push(ReplicaSetCondition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: Some(now.clone()),
        }),
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
