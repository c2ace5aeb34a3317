//! CronJob: Jobs at times.
//!
//! Watches CronJobs and Jobs. Each CronJob has one timer, for its next time.

mod history;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use client::{
    Action, Change, Client, DeleteParams, Error, EventType, Index, Informer, Queue, Recorder,
};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use self::plan::{Plan, job_name, rfc1123};
use crate::Context;
use crate::figures;
use crate::harness::{ByController, Expectations, Reconciler, same_status, watch_dependents};
use crate::jobs::{finished, finished_condition, succeeded};
use crate::meta::{Key, controller, key, name, reference, uid};

/// CronJobs reconciled at once (upstream's --concurrent-cron-job-syncs).
const WORKERS: usize = 5;

pub(crate) fn start(context: &Context) {
    let (crons, jobs) = (context.informers.of::<CronJob>(), context.informers.of::<Job>());
    let queue = Queue::new();
    let this = CronJobs {
        client: context.client.clone(),
        recorder: context.recorder("cronjob-controller"),
        written: Expectations::new(crons.clone()),
        created: Expectations::new(jobs.clone()),
        by_controller: jobs.index(),
        crons,
        jobs,
    };
    this.watch(&queue);
    crate::harness::start(context, "cronjob-controller", WORKERS, queue, this);
}

#[derive(Clone)]
struct CronJobs {
    client: Client,
    recorder: Recorder,
    crons: Informer<CronJob>,
    jobs: Informer<Job>,
    by_controller: Index<Job, ByController>,
    /// Statuses written: one that is older names too few active Jobs.
    written: Expectations<CronJob>,
    created: Expectations<Job>,
}

impl CronJobs {
    fn watch(&self, queue: &Queue<Key>) {
        let (this, queue_of_crons) = (self.clone(), queue.clone());
        self.crons.on_change(move |change| match this.new_schedule(change) {
            Some(wait) => queue_of_crons.add_after(key(&**change.object()), wait),
            None => queue_of_crons.add(key(&**change.object())),
        });
        watch_dependents(&self.jobs, &self.crons, queue, |_: &CronJob, _: &Job| false);
    }

    /// How long a schedule that was changed waits: times before the change do not count.
    fn new_schedule(&self, change: &Change<CronJob>) -> Option<Duration> {
        let Change::Updated { old, new } = change else { return None };
        let of = |cron: &CronJob| (cron.spec.schedule.clone(), cron.spec.time_zone.clone());
        if of(old) == of(new) {
            return None;
        }
        let plan = Plan::new(new, &TimeZone::system(), Timestamp::now()).ok()?;
        Some(plan.wait())
    }
}

impl Reconciler for CronJobs {
    type Key = Key;

    async fn synced(&self) {
        self.crons.synced().await;
        self.jobs.synced().await;
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let Some(cron) = self.crons.get(&key.0, &key.1) else {
            self.written.forget(&key);
            self.created.forget(&key);
            return Ok(Action::Done);
        };
        // What comes queues the key again.
        if !self.written.satisfied(&key) || !self.created.satisfied(&key) {
            return Ok(Action::Done);
        }
        let mut pass = Pass {
            this: self,
            key: &key,
            cron: &cron,
            jobs: self.by_controller.get(uid(&cron.metadata)),
            status: cron.status.clone().unwrap_or_default(),
        };
        pass.delete_surplus().await;
        let outcome = pass.run().await;
        pass.write_status().await?;
        outcome
    }
}

/// One look at one CronJob.
struct Pass<'a> {
    this: &'a CronJobs,
    key: &'a Key,
    cron: &'a CronJob,
    jobs: Vec<Arc<Job>>,
    /// As it will be written.
    status: CronJobStatus,
}

impl Pass<'_> {
    fn event(&self, kind: EventType, reason: &str, message: impl Into<String>) {
        self.this.recorder.event(&reference(self.cron), kind, reason, message);
    }

    fn warn(&self, reason: &str, message: impl Into<String>) {
        self.event(EventType::Warning, reason, message);
    }

    fn active(&self) -> Vec<ObjectReference> {
        self.status.active.clone().unwrap_or_default()
    }

    fn is_active(&self, job: &Job) -> bool {
        self.active().iter().any(|a| a.uid == job.metadata.uid)
    }

    fn forget_active(&mut self, uid: Option<&String>) {
        let mut active = self.active();
        active.retain(|a| a.uid.as_ref() != uid);
        self.status.active = Some(active).filter(|a| !a.is_empty());
    }

    async fn delete_surplus(&mut self) {
        for job in history::surplus(self.cron, &self.jobs) {
            // A failure is told as an event, and the next look tries again.
            let _told = self.delete(&job).await;
        }
    }

    /// Deletes the Job and its place among the active ones.
    async fn delete(&mut self, job: &Job) -> Result<(), Error> {
        let params = DeleteParams { propagation: Some("Background"), ..DeleteParams::default() };
        let own = name(&job.metadata);
        if let Err(error) = self.this.client.delete::<Job>(&self.key.0, own, &params).await {
            self.warn("FailedDelete", format!("Deleted job: {error}"));
            return Err(error);
        }
        self.forget_active(job.metadata.uid.as_ref());
        self.event(EventType::Normal, "SuccessfulDelete", format!("Deleted job {own}"));
        Ok(())
    }

    async fn run(&mut self) -> Result<Action, Error> {
        for job in self.jobs.clone() {
            self.look_at(&job).await?;
        }
        self.look_for_missing().await?;
        let suspended = self.cron.spec.suspend == Some(true);
        if self.cron.metadata.deletion_timestamp.is_some() || suspended {
            return Ok(Action::Done);
        }
        let plan = match Plan::new(self.cron, &TimeZone::system(), Timestamp::now()) {
            Ok(plan) => plan,
            Err(refusal) => {
                self.warn(refusal.reason, refusal.message);
                return Ok(Action::Done);
            }
        };
        self.tell_zone_in_schedule();
        match plan.due() {
            Err(refusal) => {
                self.warn(refusal.reason, refusal.message);
                Ok(Action::Done)
            }
            Ok(missed) => {
                if missed.many && missed.last.is_some() {
                    let message = "too many missed start times. Set or decrease \
                        .spec.startingDeadlineSeconds or check clock skew";
                    self.warn("TooManyMissedTimes", message);
                }
                if let Some(time) = missed.last {
                    self.start(&plan, time).await?;
                }
                Ok(Action::After(plan.wait()))
            }
        }
    }

    fn tell_zone_in_schedule(&self) {
        let schedule = &self.cron.spec.schedule;
        if schedule.contains("TZ") {
            let message = format!(
                "CRON_TZ or TZ used in schedule {schedule:?} is not officially supported, see \
                 https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
            );
            self.warn("UnsupportedSchedule", message);
        }
    }

    async fn look_at(&mut self, job: &Job) -> Result<(), Error> {
        let active = self.is_active(job);
        if !finished(job) {
            if !active && !self.server_knows_active(job).await? {
                let own = name(&job.metadata);
                let message =
                    format!("Saw a job that the controller did not create or forgot: {own}");
                self.warn("UnexpectedJob", message);
            }
            return Ok(());
        }
        if active {
            self.forget_active(job.metadata.uid.as_ref());
            let kind = finished_condition(job).map(|c| c.type_.as_str()).unwrap_or("");
            let message = format!("Saw completed job: {}, condition: {kind}", name(&job.metadata));
            self.event(EventType::Normal, "SawCompletedJob", message);
        }
        let completed = job.status.as_ref().and_then(|s| s.completion_time.as_ref());
        if let Some(at) = completed.filter(|_| succeeded(job)) {
            let last = self.status.last_successful_time.as_ref();
            if last.is_none_or(|last| at.0 > last.0) {
                self.status.last_successful_time = Some(at.clone());
            }
        }
        Ok(())
    }

    /// Whether the server's own state names the Job as active: our view may be behind.
    async fn server_knows_active(&mut self, job: &Job) -> Result<bool, Error> {
        let live: CronJob = self.this.client.get(&self.key.0, &self.key.1).await?;
        let active = live.status.and_then(|s| s.active).unwrap_or_default();
        Ok(active.iter().any(|a| a.uid == job.metadata.uid))
    }

    /// Active Jobs that are gone.
    async fn look_for_missing(&mut self) -> Result<(), Error> {
        for job in self.active() {
            if self.jobs.iter().any(|j| j.metadata.uid == job.uid) {
                continue;
            }
            let own = job.name.as_deref().unwrap_or("");
            match self.this.client.get::<Job>(&self.key.0, own).await {
                Ok(_) => {}
                Err(error) if error.is_not_found() => {
                    let message = format!("Active job went missing: {own}");
                    self.event(EventType::Normal, "MissingJob", message);
                    self.forget_active(job.uid.as_ref());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn start(&mut self, plan: &Plan<'_>, time: Timestamp) -> Result<(), Error> {
        if plan.is_too_late(time) {
            let message = format!("Missed scheduled time to start a job: {}", rfc1123(time));
            self.warn("MissSchedule", message);
            return Ok(());
        }
        let own = job_name(self.cron, time);
        let last = self.status.last_schedule_time.as_ref();
        let known = self.active().iter().any(|a| a.name.as_ref() == Some(&own));
        if known || last.is_some_and(|last| last.0 == time) {
            return Ok(());
        }
        let policy = self.cron.spec.concurrency_policy.as_deref();
        match policy {
            Some("Forbid") if !self.active().is_empty() => {
                let message = "Not starting job because prior execution is running and \
                    concurrency policy is Forbid";
                self.event(EventType::Normal, "JobAlreadyActive", message);
                return Ok(());
            }
            Some("Replace") => self.delete_active().await?,
            _ => {}
        }
        let Some(job) = self.create(&plan.job(time)).await? else { return Ok(()) };
        if let Some(Time(created)) = &job.metadata.creation_timestamp {
            let late = Duration::try_from(created.duration_since(time)).unwrap_or_default();
            figures::cron_job_created(late);
        }
        let mut active = self.active();
        active.push(ObjectReference { field_path: None, ..reference(&job) });
        self.status.active = Some(active);
        self.status.last_schedule_time = Some(Time(time));
        Ok(())
    }

    async fn delete_active(&mut self) -> Result<(), Error> {
        for active in self.active() {
            let own = active.name.as_deref().unwrap_or("");
            let job = self.this.client.get::<Job>(&self.key.0, own).await;
            let job = job.inspect_err(|error| {
                self.warn("FailedGet", format!("Get job: {error}"));
            })?;
            self.delete(&job).await?;
        }
        Ok(())
    }

    /// The Job as created now or by a pass whose status was not written; `None` if another has its name.
    async fn create(&mut self, job: &Job) -> Result<Option<Job>, Error> {
        match self.this.client.create(&self.key.0, job).await {
            Ok(created) => {
                self.this.created.expect_creation(self.key, &created);
                let message = format!("Created job {}", name(&created.metadata));
                self.event(EventType::Normal, "SuccessfulCreate", message);
                Ok(Some(created))
            }
            Err(error) if error.is_already_exists() => {
                let there: Job = self.this.client.get(&self.key.0, name(&job.metadata)).await?;
                let ours = controller(&there.metadata)
                    .is_some_and(|owner| owner.uid == uid(&self.cron.metadata));
                Ok(Some(there).filter(|job| ours && !self.is_active(job)))
            }
            Err(error) => {
                self.warn("FailedCreate", format!("Error creating job: {error}"));
                Err(error)
            }
        }
    }

    async fn write_status(&self) -> Result<(), Error> {
        if same_status(self.cron.status.as_ref(), Some(&self.status)) {
            return Ok(());
        }
        let new = CronJob { status: Some(self.status.clone()), ..self.cron.clone() };
        match self.this.client.update_status(&new).await {
            Ok(written) => {
                self.this.written.expect_change(self.key, &written);
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }
}
