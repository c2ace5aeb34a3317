//! When a CronJob's next Job is due, and what that Job is.

use std::time::Duration;

use api::cron::Schedule;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::meta::{managed_by, name};

/// Added to the time of the next look, so that clocks that differ a little do not make it early.
const SLACK: Duration = Duration::from_millis(100);
/// More missed times than this are told as an event.
const MISSED_MANY: i64 = 100;
const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// A CronJob's schedule with its time zone.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    cron: &'a CronJob,
    spec: &'a CronJobSpec,
    schedule: Schedule,
    zone: TimeZone,
    now: Timestamp,
}

/// An event and its end of the matter: the CronJob waits for another spec.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// Times that passed without a Job.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Missed {
    /// The last of them.
    pub(crate) last: Option<Timestamp>,
    pub(crate) many: bool,
    some: bool,
}

impl<'a> Plan<'a> {
    /// `local` is the machine's own time zone, for CronJobs that name none.
    pub(crate) fn new(
        cron: &'a CronJob,
        local: &TimeZone,
        now: Timestamp,
    ) -> Result<Plan<'a>, Refusal> {
        let spec = &cron.spec;
        let zone = match spec.time_zone.as_deref() {
            None | Some("") => local.clone(),
            Some(zone) => jiff::tz::db().get(zone).map_err(|_| Refusal {
                reason: "UnknownTimeZone",
                message: format!("invalid timeZone: {zone:?}: unknown time zone {zone}"),
            })?,
        };
        let text = &spec.schedule;
        let schedule = Schedule::parse(text).map_err(|fault| Refusal {
            reason: "UnparseableSchedule",
            message: format!("unparseable schedule: {text:?} : {fault}"),
        })?;
        Ok(Plan { cron, spec, schedule, zone, now })
    }

    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.schedule.next(after, &self.zone)
    }

    /// Since when times count: the last Job, or the CronJob's creation, or the starting deadline.
    fn earliest(&self, with_deadline: bool) -> Timestamp {
        let last = self.cron.status.as_ref().and_then(|s| s.last_schedule_time.as_ref());
        let since = last.or(self.cron.metadata.creation_timestamp.as_ref());
        let since = since.map_or(self.now, |t| t.0);
        let deadline = self.spec.starting_deadline_seconds.filter(|_| with_deadline);
        let limit = deadline
            .and_then(|seconds| self.now.checked_sub(SignedDuration::from_secs(seconds)).ok());
        limit.map_or(since, |limit| limit.max(since))
    }

    /// The times since `earliest` that passed. The error is upstream's sentence about a schedule that
    /// makes no sense.
    fn missed(&self, with_deadline: bool) -> Result<Missed, &'static str> {
        let impossible = "time difference between two schedules is less than 1 second";
        let first = self.next(self.earliest(with_deadline)).ok_or(impossible)?;
        if self.now < first {
            return Ok(Missed::default());
        }
        let second = self.next(first).ok_or(impossible)?;
        if self.now < second {
            return Ok(Missed { last: Some(first), ..Missed::default() });
        }
        let period = second.as_second() - first.as_second();
        if period < 1 {
            return Err(impossible);
        }
        // By estimate, not one by one: a schedule may have stood still for years.
        let count = (self.now.as_second() - first.as_second()) / period + 1;
        let skipped = SignedDuration::from_secs((count - 2).saturating_mul(period));
        let mut last = None;
        let mut at = first.checked_add(skipped).ok().and_then(|near| self.next(near));
        while let Some(time) = at.filter(|time| *time <= self.now) {
            last = Some(time);
            at = self.next(time);
        }
        Ok(Missed { last, many: count > MISSED_MANY, some: true })
    }

    /// The time whose Job is due.
    pub(crate) fn due(&self) -> Result<Missed, Refusal> {
        self.missed(true).map_err(|fault| Refusal {
            reason: "InvalidSchedule",
            message: format!("invalid schedule: {} : {fault}", self.spec.schedule),
        })
    }

    /// Whether the starting deadline of `time` is over.
    pub(crate) fn is_too_late(&self, time: Timestamp) -> bool {
        let Some(seconds) = self.spec.starting_deadline_seconds else { return false };
        let limit = time.checked_add(SignedDuration::from_secs(seconds));
        limit.is_ok_and(|limit| limit < self.now)
    }

    /// When to look again.
    pub(crate) fn wait(&self) -> Duration {
        let since = match self.missed(false) {
            Ok(Missed { last: Some(last), .. }) => last,
            Ok(Missed { some: false, .. }) => self.earliest(false),
            _ => self.now,
        };
        let left = self.next(since).map(|next| next.duration_since(self.now));
        let left = left.and_then(|left| Duration::try_from(left).ok()).unwrap_or_default();
        left + SLACK
    }

    /// The Job of `time`. Its name follows from the time, so that it cannot be created twice.
    pub(crate) fn job(&self, time: Timestamp) -> Job {
        let template = self.spec.job_template.clone();
        let meta = template.metadata.unwrap_or_default();
        let mut annotations = meta.annotations.unwrap_or_default();
        annotations.insert(SCHEDULED_AT.into(), rfc3339(time, self.zone_of_annotation()));
        Job {
            metadata: ObjectMeta {
                name: Some(job_name(self.cron, time)),
                namespace: self.cron.metadata.namespace.clone(),
                labels: meta.labels,
                annotations: Some(annotations),
                owner_references: Some(vec![managed_by(self.cron)]),
                ..ObjectMeta::default()
            },
            spec: template.spec,
            status: None,
        }
    }

    /// Times are told in the CronJob's zone, or in UTC.
    fn zone_of_annotation(&self) -> TimeZone {
        match self.spec.time_zone {
            Some(_) => self.zone.clone(),
            None => TimeZone::UTC,
        }
    }
}

pub(crate) fn job_name(cron: &CronJob, time: Timestamp) -> String {
    format!("{}-{}", name(&cron.metadata), time.as_second().div_euclid(60))
}

fn rfc3339(time: Timestamp, zone: TimeZone) -> String {
    let zoned = time.to_zoned(zone);
    match zoned.offset().seconds() {
        0 => zoned.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        _ => zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
    }
}

/// Go's RFC1123Z, in UTC.
pub(crate) fn rfc1123(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S %z").to_string()
}
