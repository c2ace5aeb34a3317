//! What a Job's pods say: how many are active, ended well or badly, and which indexes are done.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{Job, JobSpec, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::FINALIZER;
use super::backoff::{Backoff, FAILURES, IGNORED_FAILURES, counted, finish_time};
use super::indexes::{Indexes, index_of};
use super::policy::{is_failed, judge};
use crate::harness::Pending;
use crate::meta::uid;
use crate::pods::{active, finished, phase, ready};

/// What a pass is made from.
pub(crate) struct State<'a> {
    pub(crate) job: &'a Job,
    /// The pods that the Job owns.
    pub(crate) pods: &'a [Arc<Pod>],
    /// Writes that the view of the pods does not show.
    pub(crate) pending: &'a Pending,
    /// Failures known before this pass.
    pub(crate) backoff: Backoff,
    pub(crate) now: &'a Time,
}

impl State<'_> {
    /// Whether the view shows all pods created and deleted.
    pub(crate) fn is_settled(&self) -> bool {
        self.pending.creations == 0 && self.pending.deletions.is_empty()
    }

    /// Whether the pod is still to be counted.
    pub(crate) fn is_tracked(&self, pod: &Pod) -> bool {
        has_finalizer(pod) && !self.pending.changes.contains(uid(&pod.metadata))
    }

    pub(crate) fn uncounted(&self) -> UncountedTerminatedPods {
        let status = self.job.status.as_ref();
        status.and_then(|s| s.uncounted_terminated_pods.clone()).unwrap_or_default()
    }
}

pub(crate) fn spec(job: &Job) -> &JobSpec {
    static EMPTY: std::sync::LazyLock<JobSpec> = std::sync::LazyLock::new(JobSpec::default);
    job.spec.as_ref().unwrap_or(&EMPTY)
}

pub(crate) fn has_finalizer(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER)
}

pub(crate) fn is_indexed(job: &Job) -> bool {
    spec(job).completion_mode.as_deref() == Some("Indexed")
}

pub(crate) fn is_suspended(job: &Job) -> bool {
    spec(job).suspend == Some(true)
}

/// The pod's index, if it is one of the Job's.
pub(crate) fn valid_index(job: &Job, pod: &Pod) -> Option<i32> {
    index_of(pod).filter(|index| *index < spec(job).completions.unwrap_or(0))
}

#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) active: Vec<Arc<Pod>>,
    pub(crate) ready: i32,
    pub(crate) terminating: i32,
    /// Counted and not yet counted.
    pub(crate) succeeded: i32,
    pub(crate) failed: i32,
    pub(crate) backoff: Backoff,
    /// Indexes that the status names.
    pub(crate) counted_indexes: Indexes,
    pub(crate) succeeded_indexes: Indexes,
    /// With a back-off limit per index only.
    pub(crate) failed_indexes: Option<Indexes>,
    /// Failed pods that stay until another pod of their index carries their count of failures on.
    pub(crate) awaiting_replacement: BTreeMap<i32, Arc<Pod>>,
}

impl Facts {
    pub(crate) fn of(state: &State<'_>) -> Facts {
        let job = state.job;
        let status = job.status.clone().unwrap_or_default();
        let uncounted = state.uncounted();
        let gone = |p: &Pod| state.pending.deletions.contains(uid(&p.metadata));
        let pods = || state.pods.iter();
        let succeeded = new_pods(state, &uncounted.succeeded, |p| phase(p) == "Succeeded");
        let failed = new_pods(state, &uncounted.failed, |p| is_failed(job, p));
        let counting = failed.iter().filter(|p| !judge(job, p).ignored).count();
        let active: Vec<Arc<Pod>> = pods().filter(|p| active(p) && !gone(p)).cloned().collect();
        let ending = |p: &Pod| p.metadata.deletion_timestamp.is_some() || gone(p);
        let length = |list: &Option<Vec<String>>| count(list.iter().flatten().count());
        let mut facts = Facts {
            ready: count(active.iter().filter(|p| ready(p)).count()),
            terminating: count(pods().filter(|p| !finished(p) && ending(p)).count()),
            succeeded: status.succeeded.unwrap_or(0)
                + count(succeeded.len())
                + length(&uncounted.succeeded),
            failed: status.failed.unwrap_or(0) + count(counting) + length(&uncounted.failed),
            backoff: state.backoff.after(&succeeded, &failed),
            active,
            ..Facts::default()
        };
        if is_indexed(job) {
            facts.add_indexes(state);
        }
        facts
    }

    fn add_indexes(&mut self, state: &State<'_>) {
        let job = state.job;
        let completions = spec(job).completions.unwrap_or(0);
        let status = job.status.as_ref();
        let text = status.and_then(|s| s.completed_indexes.as_deref()).unwrap_or("");
        self.counted_indexes = Indexes::parse(text, completions);
        let of = |wanted: &dyn Fn(&Pod) -> bool| {
            let pods = state.pods.iter().filter(|p| has_finalizer(p) && wanted(p));
            Indexes::from_iter(pods.filter_map(|p| valid_index(job, p)))
        };
        self.succeeded_indexes = self.counted_indexes.union(&of(&|p| phase(p) == "Succeeded"));
        self.succeeded = self.succeeded_indexes.total();
        let Some(limit) = spec(job).backoff_limit_per_index else { return };
        let text = status.and_then(|s| s.failed_indexes.as_deref()).unwrap_or("");
        let failed = of(&|p| fails_index(job, p, limit));
        self.failed_indexes = Some(Indexes::parse(text, completions).union(&failed));
        self.awaiting_replacement = self.awaiting(state);
    }

    fn awaiting(&self, state: &State<'_>) -> BTreeMap<i32, Arc<Pod>> {
        let running: BTreeSet<i32> = self.active.iter().filter_map(|p| index_of(p)).collect();
        let failed = self.failed_indexes.as_ref();
        let settled = |index: i32| {
            self.succeeded_indexes.has(index)
                || failed.is_some_and(|f| f.has(index))
                || running.contains(&index)
        };
        let mut last: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
        let newness =
            |p: &Pod| (counted(p, FAILURES) + counted(p, IGNORED_FAILURES), finish_time(p));
        for pod in state.pods.iter().filter(|p| state.is_tracked(p) && is_failed(state.job, p)) {
            let Some(index) = valid_index(state.job, pod).filter(|i| !settled(*i)) else {
                continue;
            };
            let before = last.get(&index);
            if before.is_none_or(|before| newness(pod) >= newness(before)) {
                last.insert(index, pod.clone());
            }
        }
        last
    }
}

/// Tracked pods of a valid index that are not in the status yet.
fn new_pods(
    state: &State<'_>,
    uncounted: &Option<Vec<String>>,
    wanted: impl Fn(&Pod) -> bool,
) -> Vec<Arc<Pod>> {
    let known: HashSet<&str> = uncounted.iter().flatten().map(String::as_str).collect();
    let valid = |p: &Pod| !is_indexed(state.job) || valid_index(state.job, p).is_some();
    let new = |p: &&Arc<Pod>| state.is_tracked(p) && !known.contains(uid(&p.metadata));
    state.pods.iter().filter(new).filter(|p| valid(p) && wanted(p)).cloned().collect()
}

fn fails_index(job: &Job, pod: &Pod, limit: i32) -> bool {
    if !is_failed(job, pod) {
        return false;
    }
    let verdict = judge(job, pod);
    verdict.fails_index || (!verdict.ignored && counted(pod, FAILURES) >= limit)
}

pub(crate) fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
