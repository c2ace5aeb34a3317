//! Facts about a Job that several controllers ask for.

use k8s_openapi::api::batch::v1::{Job, JobCondition};

/// The condition that ended the Job: `Complete` or `Failed`.
pub(crate) fn finished_condition(job: &Job) -> Option<&JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let ends = |c: &&JobCondition| matches!(c.type_.as_str(), "Complete" | "Failed");
    conditions.iter().filter(ends).find(|c| c.status == "True")
}

pub(crate) fn finished(job: &Job) -> bool {
    finished_condition(job).is_some()
}

pub(crate) fn succeeded(job: &Job) -> bool {
    finished_condition(job).is_some_and(|c| c.type_ == "Complete")
}
