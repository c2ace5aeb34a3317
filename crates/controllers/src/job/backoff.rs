//! Exponential back-off of pods that fail, and when a pod failed.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

/// First delay; doubles with each failure in a row (upstream's DefaultJobPodFailureBackOff).
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(600);
/// Failures counted for the pod's index, in the annotation of the pod that replaces them.
pub(crate) const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// Failures that the failure policy ignores; they count for the delay only.
pub(crate) const IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// Failures since the last success.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    pub(crate) failures: i32,
    pub(crate) last: Option<Timestamp>,
}

impl Backoff {
    /// With pods that ended since.
    pub(crate) fn after(self, succeeded: &[Arc<Pod>], failed: &[Arc<Pod>]) -> Backoff {
        let last_success = succeeded.iter().map(|p| finish_time(p)).max();
        let times = failed.iter().map(|p| finish_time(p));
        let new: Vec<Timestamp> = times.filter(|t| last_success.is_none_or(|s| *t > s)).collect();
        let before = if last_success.is_some() { Backoff::default() } else { self };
        Backoff {
            failures: before.failures + i32::try_from(new.len()).unwrap_or(i32::MAX),
            last: new.into_iter().max().or(before.last),
        }
    }

    /// How long to wait before a pod is created.
    pub(crate) fn remaining(self, now: Timestamp) -> Duration {
        let (Some(last), 1..) = (self.last, self.failures) else { return Duration::ZERO };
        let doublings = u32::try_from(self.failures - 1).unwrap_or(0).min(16);
        let delay = FIRST.saturating_mul(1 << doublings).min(LONGEST);
        let elapsed = Duration::try_from(now.duration_since(last)).unwrap_or(Duration::ZERO);
        delay.saturating_sub(elapsed)
    }
}

/// How long to wait before a pod replaces `failed`, which was the last of its index.
pub(crate) fn remaining_of_index(failed: Option<&Pod>, now: Timestamp) -> Duration {
    let Some(pod) = failed else { return Duration::ZERO };
    let failures = counted(pod, FAILURES).saturating_add(counted(pod, IGNORED_FAILURES));
    Backoff { failures: failures.saturating_add(1), last: Some(finish_time(pod)) }.remaining(now)
}

/// A counter in an annotation; 0 if it is absent or nonsense.
pub(crate) fn counted(pod: &Pod, annotation: &str) -> i32 {
    let text = pod.metadata.annotations.as_ref().and_then(|a| a.get(annotation));
    text.and_then(|t| t.parse::<i32>().ok()).filter(|n| *n >= 0).unwrap_or(0)
}

/// When the pod ended: its last container, or when it ceased to be ready, or when it was deleted, or
/// else its creation.
pub(crate) fn finish_time(pod: &Pod) -> Timestamp {
    let meta = &pod.metadata;
    let deleted = || {
        let at = meta.deletion_timestamp.as_ref()?.0;
        let grace = meta.deletion_grace_period_seconds.unwrap_or(0);
        at.checked_sub(jiff::SignedDuration::from_secs(grace)).ok()
    };
    let created = || meta.creation_timestamp.as_ref().map(|t| t.0);
    let found = of_containers(pod).or_else(|| not_ready_since(pod)).or_else(deleted);
    found.or_else(created).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn of_containers(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let sidecars: Vec<&str> = pod
        .spec
        .iter()
        .flat_map(|s| s.init_containers.iter().flatten())
        .filter(|c| c.restart_policy.as_deref() == Some("Always"))
        .map(|c| c.name.as_str())
        .collect();
    let main = status.container_statuses.iter().flatten();
    let init = status.init_container_statuses.iter().flatten();
    let all = main.chain(init.filter(|c| sidecars.contains(&c.name.as_str())));
    let ended = |c: &ContainerStatus| {
        let terminated = c.state.as_ref()?.terminated.as_ref()?;
        terminated.finished_at.as_ref().map(|t| t.0)
    };
    let times: Option<Vec<Timestamp>> = all.map(ended).collect();
    times?.into_iter().max()
}

fn not_ready_since(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|c| c.type_ == "Ready" && c.status == "False")?;
    ready.last_transition_time.as_ref().map(|t| t.0)
}
