//! Counting pods exactly once: a pod that ended is named in the status, then loses its finalizer, then
//! is counted. Whatever fails between, the next pass goes on.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::conditions::{Ending, set};
use super::facts::{Facts, State, is_indexed, valid_index};
use super::indexes::{Indexes, index_of};
use super::policy::{is_failed, judge};
use crate::meta::uid;
use crate::pods::phase;

/// Pods that the status names at most (upstream's MaxUncountedPods: some 20 KB).
const UNCOUNTED_MAX: usize = 500;

#[derive(Debug)]
pub(crate) struct Tracking {
    pub(crate) status: JobStatus,
    /// Pods to take the finalizer from once the status is written.
    pub(crate) remove: Vec<Arc<Pod>>,
    pub(crate) ending: Option<Ending>,
    /// More pods ended than one pass counts.
    pub(crate) is_full: bool,
    /// What rules of the failure policy decided about pods that are named newly.
    pub(crate) handled: Vec<&'static str>,
    tracked: HashSet<String>,
}

/// Names the pods that ended in the status.
pub(crate) fn count(
    state: &State<'_>,
    facts: &Facts,
    status: JobStatus,
    ending: Option<Ending>,
) -> Tracking {
    let tracked: Vec<&Arc<Pod>> = state.pods.iter().filter(|p| state.is_tracked(p)).collect();
    let uids = tracked.iter().map(|p| uid(&p.metadata).to_owned()).collect();
    let mut tracking = Tracking {
        status,
        remove: Vec::new(),
        ending,
        is_full: false,
        handled: Vec::new(),
        tracked: uids,
    };
    tracking.count_untracked();
    let new = tracking.name_ended(state, facts, tracked);
    if is_indexed(state.job) {
        let succeeded = facts.succeeded_indexes.union(&Indexes::from_iter(new));
        let status = &mut tracking.status;
        status.succeeded = Some(succeeded.total()).filter(|n| *n != 0);
        status.completed_indexes = Some(succeeded.to_string()).filter(|t| !t.is_empty());
        status.failed_indexes = facts.failed_indexes.as_ref().map(ToString::to_string);
    }
    tracking.set_interim_condition(state.now);
    tracking
}

impl Tracking {
    fn uncounted(&mut self) -> &mut UncountedTerminatedPods {
        self.status.uncounted_terminated_pods.get_or_insert_default()
    }

    /// Counts the pods that the status names and that have no finalizer any more.
    fn count_untracked(&mut self) {
        let tracked = std::mem::take(&mut self.tracked);
        let uncounted = self.uncounted();
        let settle = |list: &mut Option<Vec<String>>| {
            let before = list.as_ref().map_or(0, Vec::len);
            if let Some(uids) = list {
                uids.retain(|uid| tracked.contains(uid));
            }
            let left = list.as_ref().map_or(0, Vec::len);
            *list = list.take().filter(|uids| !uids.is_empty());
            i32::try_from(before - left).unwrap_or(i32::MAX)
        };
        let (succeeded, failed) = (settle(&mut uncounted.succeeded), settle(&mut uncounted.failed));
        let add = |counter: &mut Option<i32>, n: i32| {
            *counter = Some(counter.unwrap_or(0) + n).filter(|n| *n != 0);
        };
        add(&mut self.status.succeeded, succeeded);
        add(&mut self.status.failed, failed);
        self.tracked = tracked;
    }

    /// The indexes that succeeded newly.
    fn name_ended(
        &mut self,
        state: &State<'_>,
        facts: &Facts,
        mut pods: Vec<&Arc<Pod>>,
    ) -> Vec<i32> {
        let job = state.job;
        if is_indexed(job) {
            pods.sort_by_key(|p| index_of(p).unwrap_or(-1));
        }
        let known = state.uncounted();
        let names =
            |list: &Option<Vec<String>>, uid: &str| list.iter().flatten().any(|known| known == uid);
        let fails = self.ending.as_ref().is_some_and(|e| !e.succeeds);
        let mut indexes = Vec::new();
        for pod in pods {
            let failed = is_failed(job, pod);
            if !self.may_let_go(state, facts, pod, failed) {
                continue;
            }
            self.remove.push(pod.clone());
            let uid = uid(&pod.metadata);
            let index = valid_index(job, pod);
            if phase(pod) == "Succeeded" && !names(&known.failed, uid) {
                if is_indexed(job) {
                    indexes.extend(index.filter(|i| !facts.counted_indexes.has(*i)));
                } else if !names(&known.succeeded, uid) {
                    self.uncounted().succeeded.get_or_insert_default().push(uid.to_owned());
                }
            } else if (failed || fails)
                && !names(&known.failed, uid)
                && (!is_indexed(job) || index.is_some())
            {
                let verdict = judge(job, pod);
                self.handled.extend(verdict.action);
                if !verdict.ignored {
                    self.uncounted().failed.get_or_insert_default().push(uid.to_owned());
                }
            }
            let length = |list: &Option<Vec<String>>| list.as_ref().map_or(0, Vec::len);
            let uncounted = self.uncounted();
            let named = length(&uncounted.succeeded) + length(&uncounted.failed);
            if indexes.len() + named >= UNCOUNTED_MAX {
                self.is_full = true;
                break;
            }
        }
        indexes
    }

    fn may_let_go(&self, state: &State<'_>, facts: &Facts, pod: &Pod, failed: bool) -> bool {
        let all = state.job.metadata.deletion_timestamp.is_some() || self.ending.is_some();
        if all || phase(pod) == "Succeeded" {
            return true;
        }
        let waits = index_of(pod).and_then(|index| facts.awaiting_replacement.get(&index));
        failed && waits.is_none_or(|waiting| waiting.metadata.uid != pod.metadata.uid)
    }

    fn set_interim_condition(&mut self, now: &Time) {
        if let Some(ending) = self.ending.clone() {
            let kind = ending.interim_type();
            set(&mut self.status, kind, true, &ending.reason, &ending.message, now);
        }
    }

    /// The pods that lost their finalizer are counted; `status` is what the server has by now.
    pub(crate) fn let_go(&mut self, status: JobStatus, removed: &[Arc<Pod>]) {
        self.status = status;
        for pod in removed {
            self.tracked.remove(uid(&pod.metadata));
        }
        self.count_untracked();
    }

    /// Sets the last condition, unless pods are still to be counted or to end.
    pub(crate) fn finish(&mut self, now: &Time) -> Option<Ending> {
        let uncounted = self.uncounted();
        let waits = uncounted.succeeded.is_some() || uncounted.failed.is_some();
        if self.is_full || waits || self.status.terminating.unwrap_or(0) > 0 {
            return None;
        }
        let ending = self.ending.clone()?;
        let kind = ending.final_type();
        set(&mut self.status, kind, true, &ending.reason, &ending.message, now);
        if ending.succeeds {
            self.status.completion_time = Some(now.clone());
        }
        Some(ending)
    }
}
