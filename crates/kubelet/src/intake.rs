//! New pods: one after the other, in the order of their creation, each is taken or refused.
//!
//! Changes of pods come by one queue, so that what is said of a pod arrives in order and a decision
//! sees all those made before it. A pod that an earlier run of the agent has taken is not judged
//! again: an agent that restarts ends no running pod.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use client::{Change, EventType, Tasks};
use k8s_openapi::api::core::v1::{Node, Pod};
use tokio::sync::mpsc;

use crate::admission::{self, Inputs, PREEMPTED, PREEMPTED_MESSAGE, Refusal};
use crate::kubelet::Shared;
use crate::node;
use crate::pod::{Event, pod_reference};
use crate::spec::{described, spec_of, uid_of};

/// Longest wait for the node's newest labels; other pods wait meanwhile.
const NODE_TIMEOUT: Duration = Duration::from_secs(2);
/// A pod in the API that stands for one of the node's own (static) pods. This node has none.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Ends when the agent does.
pub(crate) async fn run(
    shared: Arc<Shared>,
    tasks: Tasks,
    mut changes: mpsc::UnboundedReceiver<Change<Pod>>,
) {
    let mut intake = Intake { shared, tasks, taken: HashSet::new(), leaving: HashSet::new() };
    let mut first = Vec::new();
    while let Ok(change) = changes.try_recv() {
        first.push(change);
    }
    first.sort_by_key(|c| c.object().metadata.creation_timestamp.as_ref().map(|t| t.0));
    for change in first {
        intake.change(&change).await;
    }
    while let Some(change) = changes.recv().await {
        intake.change(&change).await;
    }
}

struct Intake {
    shared: Arc<Shared>,
    tasks: Tasks,
    taken: HashSet<String>,
    /// Ended to make room; they count no more, though they may take a while.
    leaving: HashSet<String>,
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Taken before, or on its way out: nothing is to be decided.
fn is_settled(pod: &Pod) -> bool {
    let started = pod.status.as_ref().is_some_and(|s| s.start_time.is_some());
    started || has_ended(pod) || pod.metadata.deletion_timestamp.is_some()
}

impl Intake {
    async fn change(&mut self, change: &Change<Pod>) {
        let pod = change.object();
        let uid = uid_of(pod);
        if let Change::Deleted(last) = change {
            self.shared.tell(uid, Event::Changed(last.clone()));
            self.shared.tell(uid, Event::Gone);
            self.taken.remove(uid);
            self.leaving.remove(uid);
            return;
        }
        if !self.shared.tell(uid, Event::Changed(pod.clone())) {
            self.add(pod).await;
        }
    }

    async fn add(&mut self, pod: &Arc<Pod>) {
        let uid = uid_of(pod);
        if !is_file_name(uid) {
            return tracing::error!(pod = described(pod), "uid is no name of a directory: ignored");
        }
        if pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR)) {
            return tracing::debug!(pod = described(pod), "mirror pod without its pod: ignored");
        }
        let decision = if is_settled(pod) { Ok(Vec::new()) } else { self.decide(pod).await };
        let refusal = match decision {
            Ok(victims) => {
                self.make_room(victims);
                self.taken.insert(uid.to_owned());
                None
            }
            Err(refusal) => {
                let about = pod_reference(pod);
                let (reason, message) = (refusal.reason.clone(), refusal.message.clone());
                self.shared.recorder.event(&about, EventType::Warning, &reason, message);
                Some(refusal)
            }
        };
        self.shared.start(&self.tasks, pod.clone(), refusal);
    }

    fn make_room(&mut self, victims: Vec<String>) {
        for uid in victims {
            let message = PREEMPTED_MESSAGE.to_owned();
            let disruption =
                Some("Pod was preempted by Kubelet to accommodate a critical pod.".to_owned());
            let event = Event::Evict { reason: PREEMPTED, message, grace: None, disruption };
            self.shared.tell(&uid, event);
            self.leaving.insert(uid);
        }
    }

    async fn decide(&self, pod: &Pod) -> Result<Vec<String>, Refusal> {
        let name = &self.shared.config.node_name;
        let known = self.shared.node.get("", name);
        let node = known.unwrap_or_else(|| Arc::new(node::expected(&self.shared.config)));
        let strict_groups = self.strict_groups(pod).await;
        let refusal = match self.check(pod, &node, strict_groups) {
            Err(refusal) if admission::is_about_labels(&refusal) => refusal,
            decided => return decided,
        };
        // The pod may have come sooner than the news of the label that it was bound for.
        let newest = self.shared.client.get::<Node>("", name);
        match tokio::time::timeout(NODE_TIMEOUT, newest).await {
            Ok(Ok(node)) => self.check(pod, &node, strict_groups),
            _ => Err(refusal),
        }
    }

    fn check(&self, pod: &Pod, node: &Node, strict_groups: bool) -> Result<Vec<String>, Refusal> {
        let mut others = self.shared.pods.list();
        others.retain(|other| {
            let uid = uid_of(other);
            self.taken.contains(uid) && !self.leaving.contains(uid) && !has_ended(other)
        });
        admission::check(&Inputs {
            pod,
            node,
            others: &others,
            pressure: &self.shared.pressure(),
            sysctls: &self.shared.config.sysctls,
            apparmor: self.shared.apparmor,
            strict_groups,
        })
    }

    /// Asked only when the pod wants it.
    async fn strict_groups(&self, pod: &Pod) -> bool {
        let spec = spec_of(pod);
        let context = spec.security_context.as_ref();
        if context.is_none_or(|s| s.supplemental_groups_policy.is_none()) {
            return false;
        }
        let status = self.shared.runtime.status(false).await;
        status.is_ok_and(|s| s.features.is_some_and(|f| f.supplemental_groups_policy))
    }
}

fn is_file_name(text: &str) -> bool {
    !text.is_empty() && !matches!(text, "." | "..") && !text.contains(['/', '\0'])
}
