//! The end of pods that make room for a critical one.
//!
//! The pod that needs the room is admitted when they have ended: what they hold is not free before.
//! One that does not end in time is waited for no longer, as in upstream.

use std::sync::Arc;
use std::time::Duration;

use client::EventType;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::oneshot;

use crate::admission::{PREEMPTED, PREEMPTED_MESSAGE};
use crate::kubelet::Shared;
use crate::pod::{Event, pod_reference};
use crate::spec::{described, spec_of, uid_of};

/// The shortest wait, for a runtime that is slow to kill.
const WAIT_MIN: Duration = Duration::from_secs(10);
const DISRUPTION: &str = "Pod was preempted by Kubelet to accommodate a critical pod.";
const LATE: &str = "Container runtime did not kill the pod within specified grace period.";

/// A pod that was told to end, and the news of its end.
struct Victim {
    pod: Arc<Pod>,
    ended: oneshot::Receiver<()>,
}

/// Pods that were told to end.
pub(crate) struct Victims(Vec<Victim>);

/// Half of the grace period more than it.
fn limit(pod: &Pod) -> Duration {
    let grace = spec_of(pod).termination_grace_period_seconds.unwrap_or(0);
    let grace = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
    (grace + grace / 2).max(WAIT_MIN)
}

impl Victims {
    /// Tells the pods of these uids to end.
    pub(crate) fn evict(shared: &Shared, uids: &[String]) -> Victims {
        let mut pods = shared.pods.list();
        pods.retain(|pod| uids.iter().any(|uid| uid == uid_of(pod)));
        let evict = |pod: Arc<Pod>| {
            let (sender, ended) = oneshot::channel();
            let event = Event::Evict {
                reason: PREEMPTED,
                message: PREEMPTED_MESSAGE.to_owned(),
                grace: None,
                disruption: Some(DISRUPTION.to_owned()),
                announced: true,
                ended: Some(sender),
            };
            shared.tell(uid_of(&pod), event);
            Victim { pod, ended }
        };
        Victims(pods.into_iter().map(evict).collect())
    }

    /// Waits until all have ended, each within its own time.
    pub(crate) async fn ended(self, shared: &Shared) {
        let wait = |victim: Victim| async move {
            // An actor that is gone has dropped the sender, which says the same.
            if tokio::time::timeout(limit(&victim.pod), victim.ended).await.is_err() {
                tracing::warn!(pod = described(&victim.pod), "not ended in time to make room");
                let about = pod_reference(&victim.pod);
                shared.recorder.event(&about, EventType::Warning, "ExceededGracePeriod", LATE);
            }
        };
        join_all(self.0.into_iter().map(wait)).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_victim_has_half_its_grace_period_more_and_ten_seconds_at_least() {
        let of = |grace| {
            let spec = json!({"containers": [], "terminationGracePeriodSeconds": grace});
            limit(&serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap())
        };
        assert_eq!(of(Some(30)), Duration::from_secs(45));
        assert_eq!(of(Some(1)), WAIT_MIN);
        assert_eq!((of(None), of(Some(-1))), (WAIT_MIN, WAIT_MIN));
    }
}
