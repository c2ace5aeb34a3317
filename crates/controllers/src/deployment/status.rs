//! A Deployment's status: counts, and the conditions that `kubectl rollout status` reads.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet, ReplicaSetCondition,
    ReplicaSetStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::rollout::{Bounds, size};
use crate::meta::{name, seconds_between};

/// `progressDeadlineSeconds` that means "none".
const NO_DEADLINE: i32 = i32::MAX;

pub(crate) fn deadline(deployment: &Deployment) -> Option<i32> {
    let seconds = deployment.spec.as_ref().and_then(|s| s.progress_deadline_seconds);
    seconds.filter(|s| *s != NO_DEADLINE)
}

pub(crate) fn condition<'a>(
    status: &'a DeploymentStatus,
    kind: &str,
) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == kind)
}

fn make(
    kind: &str,
    status: &str,
    reason: &str,
    message: String,
    now: &Time,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_update_time: Some(now.clone()),
        last_transition_time: Some(now.clone()),
    }
}

/// Replaces the condition unless status and reason are as they were.
fn set(status: &mut DeploymentStatus, mut new: DeploymentCondition) {
    if let Some(old) = condition(status, &new.type_) {
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.last_transition_time = old.last_transition_time.clone();
        }
    }
    remove(status, &new.type_);
    status.conditions.get_or_insert_default().push(new);
}

fn remove(status: &mut DeploymentStatus, kind: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|c| c.type_ != kind);
    }
}

/// A progress condition of its own: `reason` and `message` of a step just taken.
pub(crate) fn set_progress(
    status: &mut DeploymentStatus,
    value: &str,
    reason: &str,
    message: String,
    now: &Time,
) {
    set(status, make("Progressing", value, reason, message, now));
}

/// Counts and availability, with the conditions there were.
pub(crate) fn calculate(
    deployment: &Deployment,
    bounds: &Bounds,
    all: &[Arc<ReplicaSet>],
    new: Option<&Arc<ReplicaSet>>,
    now: &Time,
) -> DeploymentStatus {
    let old = deployment.status.clone().unwrap_or_default();
    let sum = |of: fn(&ReplicaSetStatus) -> i32| -> i32 {
        all.iter().filter_map(|s| s.status.as_ref()).map(of).sum()
    };
    let available = sum(|s| s.available_replicas.unwrap_or(0));
    let total: i32 = all.iter().map(|s| size(s)).sum();
    let updated = new.and_then(|s| s.status.as_ref()).map_or(0, |s| s.replicas);
    let some = |n: i32| Some(n).filter(|n| *n > 0);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(sum(|s| s.replicas)),
        updated_replicas: some(updated),
        ready_replicas: some(sum(|s| s.ready_replicas.unwrap_or(0))),
        available_replicas: some(available),
        unavailable_replicas: some(total - available),
        terminating_replicas: Some(sum(|s| s.terminating_replicas.unwrap_or(0))),
        collision_count: old.collision_count,
        conditions: old.conditions,
    };
    let condition = match available >= bounds.replicas - bounds.unavailable {
        true => ("True", "MinimumReplicasAvailable", "Deployment has minimum availability."),
        false => (
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        ),
    };
    let (value, reason, message) = condition;
    set(&mut status, make("Available", value, reason, message.into(), now));
    status
}

/// All updated, all available, nothing old left, and the spec seen.
pub(crate) fn complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let replicas = Bounds::of(deployment).replicas;
    status.updated_replicas.unwrap_or(0) == replicas
        && status.replicas.unwrap_or(0) == replicas
        && status.available_replicas.unwrap_or(0) == replicas
        && status.observed_generation >= deployment.metadata.generation
}

/// Adds what the rollout's progress says.
pub(crate) fn add_progress(
    status: &mut DeploymentStatus,
    deployment: &Deployment,
    all: &[Arc<ReplicaSet>],
    new: Option<&Arc<ReplicaSet>>,
    now: &Time,
) {
    let known = deployment.status.clone().unwrap_or_default();
    let current = condition(status, "Progressing").cloned();
    let reason = current.as_ref().and_then(|c| c.reason.as_deref());
    let finished =
        status.replicas == status.updated_replicas && reason == Some("NewReplicaSetAvailable");
    if deadline(deployment).is_none() {
        remove(status, "Progressing");
    } else if !finished {
        let subject = match new {
            Some(set) => format!("ReplicaSet \"{}\"", name(&set.metadata)),
            None => format!("Deployment \"{}\"", name(&deployment.metadata)),
        };
        if complete(deployment, status) {
            let message = format!("{subject} has successfully progressed.");
            set_progress(status, "True", "NewReplicaSetAvailable", message, now);
        } else if progressing(&known, status) {
            let message = format!("{subject} is progressing.");
            let mut fresh = make("Progressing", "True", "ReplicaSetUpdated", message, now);
            if let Some(current) = current.filter(|c| c.status == "True") {
                fresh.last_transition_time = current.last_transition_time;
            }
            remove(status, "Progressing");
            set(status, fresh);
        } else if timed_out(deployment, status, now) {
            let message = format!("{subject} has timed out progressing.");
            set_progress(status, "False", "ProgressDeadlineExceeded", message, now);
        }
    }
    copy_failure(status, all, new);
}

fn progressing(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let n = |count: Option<i32>| count.unwrap_or(0);
    let outdated = |s: &DeploymentStatus| n(s.replicas) - n(s.updated_replicas);
    n(new.updated_replicas) > n(old.updated_replicas)
        || outdated(new) < outdated(old)
        || n(new.ready_replicas) > n(old.ready_replicas)
        || n(new.available_replicas) > n(old.available_replicas)
}

fn timed_out(deployment: &Deployment, status: &DeploymentStatus, now: &Time) -> bool {
    match left(deployment, status, now) {
        Some(left) => left < 0,
        None => {
            condition(status, "Progressing").and_then(|c| c.reason.as_deref())
                == Some("ProgressDeadlineExceeded")
        }
    }
}

/// Seconds until the deadline of a rollout under way.
fn left(deployment: &Deployment, status: &DeploymentStatus, now: &Time) -> Option<i64> {
    let seconds = i64::from(deadline(deployment)?);
    let condition = condition(status, "Progressing")?;
    let over = ["NewReplicaSetAvailable", "ProgressDeadlineExceeded"];
    if condition.reason.as_deref().is_some_and(|r| over.contains(&r)) {
        return None;
    }
    Some(seconds - seconds_between(condition.last_update_time.as_ref()?, now))
}

/// When to look whether the deadline has passed.
pub(crate) fn recheck(
    deployment: &Deployment,
    status: &DeploymentStatus,
    now: &Time,
) -> Option<Duration> {
    if complete(deployment, status) {
        return None;
    }
    let left = left(deployment, status, now)?;
    Some(Duration::from_secs(u64::try_from(left).unwrap_or(0) + 1))
}

/// What hinders a set hinders the Deployment.
fn copy_failure(
    status: &mut DeploymentStatus,
    all: &[Arc<ReplicaSet>],
    new: Option<&Arc<ReplicaSet>>,
) {
    let failure = |s: &Arc<ReplicaSet>| -> Option<ReplicaSetCondition> {
        let conditions = s.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|c| c.type_ == "ReplicaFailure").cloned()
    };
    match new.and_then(failure).or_else(|| all.iter().find_map(failure)) {
        None => remove(status, "ReplicaFailure"),
        Some(failure) => set(
            status,
            DeploymentCondition {
                type_: failure.type_,
                status: failure.status,
                reason: failure.reason,
                message: failure.message,
                last_transition_time: failure.last_transition_time.clone(),
                last_update_time: failure.last_transition_time,
            },
        ),
    }
}

/// Whether the statuses say the same; 0 and absent do.
pub(crate) fn same(old: Option<&DeploymentStatus>, new: &DeploymentStatus) -> bool {
    let mut old = old.cloned().unwrap_or_default();
    for field in [
        &mut old.replicas,
        &mut old.updated_replicas,
        &mut old.ready_replicas,
        &mut old.available_replicas,
        &mut old.unavailable_replicas,
    ] {
        *field = field.filter(|n| *n > 0);
    }
    old.terminating_replicas = Some(old.terminating_replicas.unwrap_or(0));
    old == *new
}
