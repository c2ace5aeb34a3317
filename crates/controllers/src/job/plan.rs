//! What to do with a Job's pods, and whether it ends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;

use super::backoff::remaining_of_index;
use super::conditions::{Ending, decided};
use super::facts::{Facts, State, count, is_indexed, is_suspended, spec, valid_index};
use super::indexes::{Indexes, index_of};
use super::pods::create;
use super::policy::{is_failed, judge, only_replaces_failed, success};
use crate::harness::by_deletion_order;
use crate::pods::{finished, phase};

/// Pods created or deleted in one pass at most (upstream's MaxPodCreateDeletePerSync).
const BURST_MAX: usize = 500;

/// The change of pods in this pass: creations or deletions, never both.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    Nothing,
    Create(Vec<Pod>),
    /// Without counting them: they lose the finalizer first.
    Delete(Vec<Arc<Pod>>),
    /// The Job ends: its pods are counted before they lose the finalizer.
    DeleteActive,
}

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) facts: Facts,
    pub(crate) ending: Option<Ending>,
    pub(crate) step: Step,
    /// Whether pods were looked after in this pass, so that conditions may follow from them.
    pub(crate) manages: bool,
    pub(crate) recheck: Option<Duration>,
}

pub(crate) fn plan(state: &State<'_>) -> Plan {
    let facts = Facts::of(state);
    let mut plan = Plan { ending: None, step: Step::Nothing, manages: false, recheck: None, facts };
    plan.ending = ending(state, &plan.facts);
    if plan.ending.is_some() {
        plan.step = Step::DeleteActive;
        return plan;
    }
    plan.recheck = deadline_left(state).map(|left| left + Duration::from_millis(1));
    if state.is_settled() && state.job.metadata.deletion_timestamp.is_none() {
        plan.manages = true;
        let (step, wait) = manage(state, &plan.facts);
        plan.step = step;
        plan.recheck = plan.recheck.into_iter().chain(wait).min();
    }
    plan
}

fn ending(state: &State<'_>, facts: &Facts) -> Option<Ending> {
    let job = state.job;
    let status = job.status.clone().unwrap_or_default();
    decided(&status)
        .or_else(|| failed_by_policy(job, state.pods))
        .or_else(|| out_of_retries(state, facts))
        .or_else(|| out_of_time(state))
        .or_else(|| failed_indexes(job, facts))
        .or_else(|| {
            let message = success(job, &facts.succeeded_indexes).filter(|_| is_indexed(job))?;
            Some(Ending::success("SuccessPolicy", message))
        })
}

fn failed_by_policy(job: &Job, pods: &[Arc<Pod>]) -> Option<Ending> {
    let mut failed = pods.iter().filter(|p| is_failed(job, p));
    let message = failed.find_map(|p| judge(job, p).fails_job)?;
    Some(Ending::failure("PodFailurePolicy", message))
}

fn out_of_retries(state: &State<'_>, facts: &Facts) -> Option<Ending> {
    let limit = spec(state.job).backoff_limit.unwrap_or(6);
    let message = "Job has reached the specified backoff limit";
    let over = facts.failed > limit || too_many_restarts(state.job, state.pods, limit);
    over.then(|| Ending::failure("BackoffLimitExceeded", message))
}

/// With `restartPolicy: OnFailure` the containers' restarts are the retries.
fn too_many_restarts(job: &Job, pods: &[Arc<Pod>], limit: i32) -> bool {
    let template = spec(job).template.spec.as_ref();
    if template.and_then(|s| s.restart_policy.as_deref()) != Some("OnFailure") {
        return false;
    }
    let living = pods.iter().filter(|p| matches!(phase(p), "Running" | "Pending"));
    let statuses = living.filter_map(|p| p.status.as_ref());
    let restarts: i32 = statuses
        .flat_map(|s| {
            let init = s.init_container_statuses.iter().flatten();
            init.chain(s.container_statuses.iter().flatten())
        })
        .map(|c| c.restart_count)
        .sum();
    if limit == 0 { restarts > 0 } else { restarts >= limit }
}

fn deadline_left(state: &State<'_>) -> Option<Duration> {
    let seconds = spec(state.job).active_deadline_seconds?;
    let start = state.job.status.as_ref().and_then(|s| s.start_time.as_ref());
    if is_suspended(state.job) {
        return None;
    }
    // A Job that starts now has it all.
    let elapsed = start.map_or(0, |s| state.now.0.as_second() - s.0.as_second());
    u64::try_from(seconds.saturating_sub(elapsed))
        .ok()
        .map(Duration::from_secs)
        .or(Some(Duration::ZERO))
}

fn out_of_time(state: &State<'_>) -> Option<Ending> {
    let started = state.job.status.as_ref().is_some_and(|s| s.start_time.is_some());
    let over = started && deadline_left(state) == Some(Duration::ZERO);
    over.then(|| {
        Ending::failure("DeadlineExceeded", "Job was active longer than specified deadline")
    })
}

fn failed_indexes(job: &Job, facts: &Facts) -> Option<Ending> {
    let failed = facts.failed_indexes.as_ref()?.total();
    if spec(job).max_failed_indexes.is_some_and(|most| failed > most) {
        let message = "Job has exceeded the specified maximal number of failed indexes";
        return Some(Ending::failure("MaxFailedIndexesExceeded", message));
    }
    let all = spec(job).completions.unwrap_or(0);
    let over = failed > 0 && failed + facts.succeeded_indexes.total() >= all;
    over.then(|| Ending::failure("FailedIndexes", "Job has failed indexes"))
}

/// Deletes surplus pods or creates missing ones.
fn manage(state: &State<'_>, facts: &Facts) -> (Step, Option<Duration>) {
    let job = state.job;
    let active = count(facts.active.len());
    if is_suspended(job) {
        return (delete(job, facts, facts.active.len()), None);
    }
    let wanted = wanted(job, facts, active);
    let surplus = usize::try_from(active - wanted).unwrap_or(0);
    let deletion = delete(job, facts, surplus);
    if deletion != Step::Nothing {
        return (deletion, None);
    }
    let terminating = if only_replaces_failed(job) { facts.terminating } else { 0 };
    let missing = usize::try_from(wanted - terminating - active).unwrap_or(0);
    match missing {
        0 => (Step::Nothing, None),
        missing => add(state, facts, missing.min(BURST_MAX)),
    }
}

fn wanted(job: &Job, facts: &Facts, active: i32) -> i32 {
    let parallelism = spec(job).parallelism.unwrap_or(1);
    match spec(job).completions {
        // A work queue: once a pod succeeded, the others finish and none is added.
        None if facts.succeeded > 0 => active,
        None => parallelism,
        Some(completions) => (completions - facts.succeeded).min(parallelism).max(0),
    }
}

/// Pods without a valid index and doubles of an index always go.
fn delete(job: &Job, facts: &Facts, at_least: usize) -> Step {
    let mut pods = facts.active.clone();
    by_deletion_order(&mut pods);
    let mut going = Vec::new();
    if is_indexed(job) {
        let mut seen = BTreeSet::new();
        // The most useful of an index stays: the last in the order of deletion.
        for pod in std::mem::take(&mut pods).into_iter().rev() {
            match valid_index(job, &pod) {
                Some(index) if seen.insert(index) => pods.push(pod),
                _ => going.push(pod),
            }
        }
        pods.reverse();
    }
    let more = at_least.saturating_sub(going.len());
    going.extend(pods.into_iter().take(more));
    going.truncate(BURST_MAX);
    if going.is_empty() { Step::Nothing } else { Step::Delete(going) }
}

fn add(state: &State<'_>, facts: &Facts, missing: usize) -> (Step, Option<Duration>) {
    let job = state.job;
    let per_index = facts.failed_indexes.is_some();
    let wait = facts.backoff.remaining(state.now.0);
    if !per_index && !wait.is_zero() {
        return (Step::Nothing, Some(wait));
    }
    if !is_indexed(job) {
        return (Step::Create(vec![create(job, None, None); missing]), None);
    }
    let failed_pod = |index: &i32| facts.awaiting_replacement.get(index).map(|p| &**p);
    let wait_of = |index: &i32| remaining_of_index(failed_pod(index), state.now.0);
    let indexes = pending_indexes(state, facts, missing);
    let (now, later): (Vec<i32>, Vec<i32>) =
        indexes.into_iter().partition(|index| !per_index || wait_of(index).is_zero());
    let wait = later.iter().map(wait_of).min();
    if now.is_empty() {
        return (Step::Nothing, wait);
    }
    let pods = now.iter().map(|index| create(job, Some(*index), failed_pod(index)));
    (Step::Create(pods.collect()), wait)
}

fn pending_indexes(state: &State<'_>, facts: &Facts, missing: usize) -> Vec<i32> {
    let active = Indexes::from_iter(facts.active.iter().filter_map(|p| index_of(p)));
    let mut taken = facts.succeeded_indexes.union(&active);
    if only_replaces_failed(state.job) {
        let ends = |p: &&Arc<Pod>| !finished(p) && p.metadata.deletion_timestamp.is_some();
        let ending = state.pods.iter().filter(ends).filter_map(|p| index_of(p));
        taken = taken.union(&Indexes::from_iter(ending));
    }
    if let Some(failed) = &facts.failed_indexes {
        taken = taken.union(failed);
    }
    taken.first_missing(missing, spec(state.job).completions.unwrap_or(0))
}

/// What the step did.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) created: i32,
    pub(crate) deleted: i32,
    pub(crate) deleted_ready: i32,
}

/// The status before pods are counted, the ending if the Job may end, and the event of a change of
/// suspension (reason, message).
pub(crate) fn conclude(
    state: &State<'_>,
    plan: &Plan,
    outcome: Outcome,
) -> (JobStatus, Option<Ending>, Option<(&'static str, &'static str)>) {
    let job = state.job;
    let had = count(plan.facts.active.len());
    let on_their_way = count(state.pending.creations);
    let active = had + on_their_way + outcome.created - outcome.deleted;
    let mut status = job.status.clone().unwrap_or_default();
    status.uncounted_terminated_pods.get_or_insert_default();
    if status.start_time.is_none() && !is_suspended(job) {
        status.start_time = Some(state.now.clone());
    }
    let mut event = None;
    let ending = match &plan.ending {
        // Until every pod is known to be deleted, some could still be uncounted.
        Some(ending) => (outcome.deleted == had && state.is_settled()).then(|| ending.clone()),
        None if is_complete(job, &plan.facts, active) => {
            Some(Ending::success("CompletionsReached", "Reached expected number of succeeded pods"))
        }
        None => {
            if plan.manages {
                event = suspension(job, &mut status, state);
            }
            None
        }
    };
    status.active = Some(active).filter(|n| *n != 0);
    status.ready = Some(plan.facts.ready - outcome.deleted_ready);
    status.terminating = Some(plan.facts.terminating + outcome.deleted);
    (status, ending, event)
}

fn is_complete(job: &Job, facts: &Facts, active: i32) -> bool {
    match spec(job).completions {
        None => facts.succeeded > 0 && active == 0,
        Some(completions) => facts.succeeded >= completions && active == 0,
    }
}

fn suspension(
    job: &Job,
    status: &mut JobStatus,
    state: &State<'_>,
) -> Option<(&'static str, &'static str)> {
    use super::conditions::set;
    if is_suspended(job) {
        let reason = ("JobSuspended", "Job suspended");
        let changed = set(status, "Suspended", true, reason.0, reason.1, state.now);
        if changed {
            status.start_time = None;
        }
        return changed.then_some(("Suspended", "Job suspended"));
    }
    let changed = set(status, "Suspended", false, "JobResumed", "Job resumed", state.now);
    if changed {
        status.start_time = Some(state.now.clone());
    }
    changed.then_some(("Resumed", "Job resumed"))
}
