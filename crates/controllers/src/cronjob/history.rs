//! Jobs that a CronJob keeps and those it lets go.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::{CronJob, Job};

use crate::jobs::{finished, succeeded};
use crate::meta::name;

/// Jobs that ended, beyond the limits; the oldest first.
pub(crate) fn surplus(cron: &CronJob, jobs: &[Arc<Job>]) -> Vec<Arc<Job>> {
    let spec = &cron.spec;
    let ended = |well: bool| jobs.iter().filter(move |j| finished(j) && succeeded(j) == well);
    let mut gone = oldest(ended(true), spec.successful_jobs_history_limit);
    gone.extend(oldest(ended(false), spec.failed_jobs_history_limit));
    gone
}

fn oldest<'a>(jobs: impl Iterator<Item = &'a Arc<Job>>, limit: Option<i32>) -> Vec<Arc<Job>> {
    let Some(limit) = limit.and_then(|n| usize::try_from(n).ok()) else { return Vec::new() };
    let mut jobs: Vec<Arc<Job>> = jobs.cloned().collect();
    jobs.sort_by_cached_key(|job| {
        let start = job.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0);
        (start.is_none(), start, name(&job.metadata).to_owned())
    });
    let surplus = jobs.len().saturating_sub(limit);
    jobs.truncate(surplus);
    jobs
}
