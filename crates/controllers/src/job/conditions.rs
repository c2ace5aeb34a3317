//! A Job's conditions.

use k8s_openapi::api::batch::v1::{JobCondition, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub(crate) const FAILURE_TARGET: &str = "FailureTarget";
pub(crate) const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";

/// How a Job is to end, or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) succeeds: bool,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl Ending {
    pub(crate) fn failure(reason: &str, message: impl Into<String>) -> Ending {
        Ending { succeeds: false, reason: reason.into(), message: message.into() }
    }

    pub(crate) fn success(reason: &str, message: impl Into<String>) -> Ending {
        Ending { succeeds: true, reason: reason.into(), message: message.into() }
    }

    /// The condition that says how it will end, set before pods lose their finalizers.
    pub(crate) fn interim_type(&self) -> &'static str {
        if self.succeeds { SUCCESS_CRITERIA_MET } else { FAILURE_TARGET }
    }

    pub(crate) fn final_type(&self) -> &'static str {
        if self.succeeds { "Complete" } else { "Failed" }
    }
}

/// The ending that an earlier pass decided on.
pub(crate) fn decided(status: &JobStatus) -> Option<Ending> {
    let holds = |kind: &str| find(status, kind).filter(|c| c.status == "True");
    let ending = |c: &JobCondition, succeeds| Ending {
        succeeds,
        reason: c.reason.clone().unwrap_or_default(),
        message: c.message.clone().unwrap_or_default(),
    };
    holds(SUCCESS_CRITERIA_MET)
        .map(|c| ending(c, true))
        .or_else(|| holds(FAILURE_TARGET).map(|c| ending(c, false)))
}

pub(crate) fn find<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == kind)
}

/// Sets the condition; whether that changed anything. A condition that is absent is not set to False.
pub(crate) fn set(
    status: &mut JobStatus,
    kind: &str,
    value: bool,
    reason: &str,
    message: &str,
    now: &Time,
) -> bool {
    let value = if value { "True" } else { "False" };
    let new = JobCondition {
        type_: kind.into(),
        status: value.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_probe_time: Some(now.clone()),
        last_transition_time: Some(now.clone()),
    };
    let same = |c: &JobCondition| {
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        c.status == value && text(&c.reason) == reason && text(&c.message) == message
    };
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|c| c.type_ == kind) {
        Some(old) if same(old) => false,
        Some(old) => {
            *old = new;
            true
        }
        None if value == "False" => false,
        None => {
            conditions.push(new);
            true
        }
    }
}
