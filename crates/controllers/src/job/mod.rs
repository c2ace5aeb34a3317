//! Job: pods that run to completion, each counted exactly once.
//!
//! Watches Jobs and Pods. A pass plans from the pods (`facts`, `plan`), creates or deletes some, and
//! counts those that ended (`track`): first it names them in the status, then it takes the finalizer
//! from them, then it counts them.

mod backoff;
mod conditions;
mod facts;
mod indexes;
mod orphans;
mod plan;
mod pods;
mod policy;
#[cfg(test)]
mod tests;
mod track;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use client::{Action, Change, Client, Error, EventType, Index, Informer, Queue, Recorder};
use futures::future::join_all;
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use self::backoff::Backoff;
use self::conditions::Ending;
use self::facts::{State, spec};
use self::plan::{Outcome, Plan, Step, conclude, plan};
use self::track::Tracking;
use crate::Context;
use crate::figures::{self, JobAction};
use crate::harness::{
    ByController, Candidates, Expectations, Orphans, PodControl, Reconciler, claim_with_finalizer,
    enqueue, same_status,
};
use crate::jobs::finished;
use crate::meta::{Key, controller, key, matches, namespace, now, reference, selector, uid};
use crate::pods::{phase, ready};

/// Keeps a pod until it is counted.
const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// The value of `managedBy` for this controller.
const MANAGER: &str = "kubernetes.io/job-controller";
/// Jobs reconciled at once (upstream's --concurrent-job-syncs).
const WORKERS: usize = 5;
/// Changes of pods that come together make one pass (upstream waits a second).
const BATCH: Duration = Duration::from_millis(50);

pub(crate) fn start(context: &Context) {
    let (jobs, pods) = (context.informers.of::<Job>(), context.informers.of::<Pod>());
    let queue = Queue::new();
    enqueue(&jobs, &queue);
    watch_pods(&pods, &jobs, &queue);
    let recorder = context.recorder("job-controller");
    let this = Jobs {
        control: PodControl::new(context.client.clone(), recorder.clone(), pods.clone()),
        recorder,
        client: context.client.clone(),
        written: Expectations::new(jobs.clone()),
        by_controller: pods.index(),
        orphans: pods.index(),
        backoff: Arc::default(),
        jobs,
        pods,
    };
    crate::harness::start(context, "job-controller", WORKERS, queue, this);
    orphans::start(context);
}

fn watch_pods(pods: &Informer<Pod>, jobs: &Informer<Job>, queue: &Queue<Key>) {
    let (jobs, queue) = (jobs.clone(), queue.clone());
    pods.on_change(move |change| {
        let now = Some(&**change.object()).filter(|_| !matches!(change, Change::Deleted(_)));
        tell_finalizer(change.old().map(|pod| &**pod), now);
        for pod in [Some(change.object()), change.old()].into_iter().flatten() {
            let space = namespace(&pod.metadata);
            match controller(&pod.metadata) {
                Some(owner) if owner.kind == "Job" => {
                    queue.add_after((space.to_owned(), owner.name.clone()), BATCH);
                }
                Some(_) => {}
                None => {
                    let all = jobs.list_namespace(space);
                    let fitting = all.iter().filter(|job| selects(job, pod));
                    fitting.for_each(|job| queue.add_after(key(&**job), BATCH));
                }
            }
        }
    });
}

/// Counts pods that end with the finalizer, and those that lose it (`recordFinishedPodWithTrackingFinalizer`).
fn tell_finalizer(before: Option<&Pod>, now: Option<&Pod>) {
    let held = |pod: Option<&Pod>| {
        pod.is_some_and(|pod| {
            let finalizers = pod.metadata.finalizers.as_deref().unwrap_or_default();
            matches!(phase(pod), "Succeeded" | "Failed")
                && finalizers.iter().any(|f| f == FINALIZER)
        })
    };
    let (before, now) = (held(before), held(now));
    if before != now {
        figures::job_finalizer(now);
    }
}

fn selects(job: &Job, pod: &Pod) -> bool {
    let of = spec(job).selector.as_ref();
    of.is_some_and(|s| matches(&selector(s), pod.metadata.labels.as_ref()))
}

fn mode(job: &Job) -> &str {
    spec(job).completion_mode.as_deref().unwrap_or("NonIndexed")
}

/// Counts the pods that a status has more than the one before.
fn tell_counted(job: &Job, status: &JobStatus) {
    let more = |of: fn(&JobStatus) -> Option<i32>| {
        of(status).unwrap_or(0) - job.status.as_ref().and_then(of).unwrap_or(0)
    };
    figures::job_pods_finished(mode(job), more(|s| s.succeeded), more(|s| s.failed));
}

/// Whether another controller looks after the Job.
fn is_foreign(job: &Job) -> bool {
    spec(job).managed_by.as_deref().is_some_and(|manager| manager != MANAGER)
}

#[derive(Clone)]
struct Jobs {
    client: Client,
    recorder: Recorder,
    control: PodControl,
    jobs: Informer<Job>,
    pods: Informer<Pod>,
    by_controller: Index<Pod, ByController>,
    orphans: Index<Pod, Orphans>,
    /// Statuses written: a pass on an older one would count twice.
    written: Expectations<Job>,
    backoff: Arc<Mutex<HashMap<Key, Backoff>>>,
}

impl Reconciler for Jobs {
    type Key = Key;

    async fn synced(&self) {
        self.jobs.synced().await;
        self.pods.synced().await;
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let Some(job) = self.jobs.get(&key.0, &key.1) else {
            self.control.expectations.forget(&key);
            self.written.forget(&key);
            self.backoff().remove(&key);
            return Ok(Action::Done);
        };
        if finished(&job) {
            self.backoff().remove(&key);
            return Ok(Action::Done);
        }
        // The status that comes queues the key again.
        if is_foreign(&job) || !self.written.satisfied(&key) {
            return Ok(Action::Done);
        }
        let mode = mode(&job);
        if !matches!(mode, "NonIndexed" | "Indexed") {
            let message = "Skipped Job sync because completion mode is unknown";
            self.event(&job, EventType::Warning, "UnknownCompletionMode", message);
            return Ok(Action::Done);
        }
        let (start, mut action) = (Instant::now(), JobAction::Reconciling);
        let result = self.sync(&key, &job, &mut action).await;
        figures::job_synced(mode, result.is_ok(), action, start.elapsed());
        result
    }
}

impl Jobs {
    fn backoff(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Backoff>> {
        self.backoff.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn event(&self, job: &Job, kind: EventType, reason: &str, message: &str) {
        self.recorder.event(&reference(job), kind, reason, message);
    }

    /// `action` becomes what is done, also when that fails.
    async fn sync(&self, key: &Key, job: &Job, action: &mut JobAction) -> Result<Action, Error> {
        // Before the pods are read: what comes later is in neither or in both.
        let pending = self.control.expectations.pending(key);
        let mut pods = self.by_controller.get(uid(&job.metadata));
        pods.extend(self.orphans.get(&key.0));
        let candidates = Candidates::sort(job, |pod| selects(job, pod), pods, |_| true);
        let claimed = claim_with_finalizer(&self.client, job, candidates, Some(FINALIZER)).await?;
        let Some(pods) = claimed else { return Ok(Action::Done) };
        let now = now();
        let backoff = self.backoff().get(key).copied().unwrap_or_default();
        let state = State { job, pods: &pods, pending: &pending, backoff, now: &now };
        let plan = plan(&state);
        *action = match &plan.step {
            Step::Nothing => JobAction::Tracking,
            Step::Create(_) => JobAction::PodsCreated,
            Step::Delete(_) | Step::DeleteActive => JobAction::PodsDeleted,
        };
        let (outcome, result) = self.apply(key, job, &plan).await;
        let (status, ending, event) = conclude(&state, &plan, outcome);
        if let Some((reason, message)) = event {
            self.event(job, EventType::Normal, reason, message);
        }
        let tracking = track::count(&state, &plan.facts, status, ending);
        self.track(key, job, &plan, tracking, &now).await?;
        result?;
        Ok(plan.recheck.map_or(Action::Done, Action::After))
    }

    async fn apply(&self, key: &Key, job: &Job, plan: &Plan) -> (Outcome, Result<(), Error>) {
        match &plan.step {
            Step::Nothing => (Outcome::default(), Ok(())),
            Step::Create(pods) => {
                let (created, result) = self.control.create_all(job, key, pods).await;
                let created = facts::count(created);
                (Outcome { created, ..Outcome::default() }, result)
            }
            Step::Delete(pods) => self.delete(key, job, pods, true).await,
            Step::DeleteActive => self.delete(key, job, &plan.facts.active, false).await,
        }
    }

    async fn delete(
        &self,
        key: &Key,
        job: &Job,
        pods: &[Arc<Pod>],
        uncounted: bool,
    ) -> (Outcome, Result<(), Error>) {
        let one = |pod: Arc<Pod>| async move {
            if uncounted && facts::has_finalizer(&pod) {
                match orphans::remove_finalizer(&self.client, &pod).await {
                    Err(error) if error.is_not_found() || error.is_invalid() => return Ok(()),
                    other => drop(other?),
                }
            }
            self.control.delete(job, key, &pod).await
        };
        let results = join_all(pods.iter().cloned().map(one)).await;
        let done = || pods.iter().zip(&results).filter(|(_, r)| r.is_ok()).map(|(p, _)| p);
        let outcome = Outcome {
            created: 0,
            deleted: facts::count(done().count()),
            deleted_ready: facts::count(done().filter(|p| ready(p)).count()),
        };
        (outcome, results.into_iter().collect())
    }

    async fn track(
        &self,
        key: &Key,
        job: &Job,
        plan: &Plan,
        mut tracking: Tracking,
        now: &Time,
    ) -> Result<(), Error> {
        let Some(mut current) = self.write(key, job, &tracking.status).await? else {
            return Ok(());
        };
        tracking.handled.iter().for_each(|action| figures::job_failure_handled(action));
        self.backoff().insert(key.clone(), plan.facts.backoff);
        let (removed, result) = self.let_go(key, &tracking.remove).await;
        tracking.let_go(current.status.clone().unwrap_or_default(), &removed);
        let ended = if result.is_ok() { tracking.finish(now) } else { None };
        match self.write(key, &current, &tracking.status).await? {
            Some(written) => current = written,
            None => return Ok(()),
        }
        if let Some(ending) = ended {
            self.tell_end(&current, &ending);
        }
        result
    }

    /// Writes the status unless it is there already; `None` if the Job is gone.
    async fn write(&self, key: &Key, job: &Job, status: &JobStatus) -> Result<Option<Job>, Error> {
        let new = Job { status: Some(status.clone()), ..job.clone() };
        if same_status(job.status.as_ref(), Some(status)) {
            return Ok(Some(new));
        }
        match self.client.update_status(&new).await {
            Ok(written) => {
                self.written.expect_change(key, &written);
                tell_counted(job, status);
                Ok(Some(written))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes the finalizer from the pods; those that have it no more.
    async fn let_go(&self, key: &Key, pods: &[Arc<Pod>]) -> (Vec<Arc<Pod>>, Result<(), Error>) {
        let one = |pod: Arc<Pod>| async move {
            match orphans::remove_finalizer(&self.client, &pod).await {
                Ok(patched) => {
                    self.control.expectations.expect_change(key, &patched);
                    Ok(pod)
                }
                Err(error) if error.is_not_found() || error.is_invalid() => Ok(pod),
                Err(error) => Err(error),
            }
        };
        let (mut removed, mut result) = (Vec::new(), Ok(()));
        for outcome in join_all(pods.iter().cloned().map(one)).await {
            match outcome {
                Ok(pod) => removed.push(pod),
                Err(error) => result = Err(error),
            }
        }
        (removed, result)
    }

    fn tell_end(&self, job: &Job, ending: &Ending) {
        figures::job_finished(mode(job), ending.succeeds, &ending.reason);
        if !ending.succeeds {
            return self.event(job, EventType::Warning, &ending.reason, &ending.message);
        }
        let succeeded = job.status.as_ref().and_then(|s| s.succeeded).unwrap_or(0);
        if spec(job).completions.is_some_and(|wanted| succeeded > wanted) {
            let message = "Too many succeeded pods running after completion count reached";
            self.event(job, EventType::Warning, "TooManySucceededPods", message);
        }
        self.event(job, EventType::Normal, "Completed", "Job completed");
    }
}
