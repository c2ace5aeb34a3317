//! What the scheduler tells the API about pods: where they went, why they wait, whom they displace.

use std::sync::Arc;

use client::{Client, DeleteParams, Error, EventType, Patch, Recorder};
use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodCondition};
use serde_json::{Value, json};

use crate::framework::Victims;
use crate::pod::PodInfo;

/// Longest note of an event (upstream's `NoteLengthLimit`).
const NOTE_MAX: usize = 1024;

/// Why a pod has no node yet: the reason of its `PodScheduled` condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    Unschedulable,
    SchedulerError,
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Reason::Unschedulable => "Unschedulable",
            Reason::SchedulerError => "SchedulerError",
        }
    }
}

/// Writes as one scheduler name.
#[derive(Debug, Clone)]
pub(crate) struct Reporter {
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
    pub(crate) scheduler_name: String,
}

impl Reporter {
    pub(crate) fn bound(&self, pod: &PodInfo, node: &str) {
        let message = format!("Successfully assigned {}/{} to {node}", pod.namespace(), pod.name());
        self.recorder.event(&reference(&pod.pod), EventType::Normal, "Scheduled", message);
    }

    /// Tells why the pod has no node. `nominated` is the node that it is to wait for: empty for none any
    /// more, absent for no change.
    pub(crate) async fn refused(
        &self,
        pod: &Pod,
        reason: Reason,
        message: &str,
        nominated: Option<&str>,
    ) -> Result<(), Error> {
        let note = truncated(message);
        self.recorder.event(&reference(pod), EventType::Warning, "FailedScheduling", note);
        let Some(patch) = refusal_patch(pod, reason, message, nominated) else { return Ok(()) };
        let (namespace, name) = names(pod);
        let patch = Patch::Strategic(patch);
        gone_is_fine(self.client.patch_status::<Pod>(namespace, name, &patch).await.map(drop))
    }

    /// Takes a nomination back.
    pub(crate) async fn clear_nomination(&self, pod: &Pod) -> Result<(), Error> {
        let patch = Patch::Merge(json!({"status": {"nominatedNodeName": null}}));
        let (namespace, name) = names(pod);
        gone_is_fine(self.client.patch_status::<Pod>(namespace, name, &patch).await.map(drop))
    }

    /// Ends the victims; those that are ending already are left alone.
    pub(crate) async fn evict(&self, pod: &PodInfo, victims: &Victims) -> Result<(), Error> {
        for victim in victims.pods.iter().filter(|v| !v.terminating()) {
            self.evict_one(pod, victim, &victims.node).await?;
        }
        Ok(())
    }

    async fn evict_one(
        &self,
        pod: &PodInfo,
        victim: &Arc<PodInfo>,
        node: &str,
    ) -> Result<(), Error> {
        let name = &self.scheduler_name;
        let condition = json!({"status": {"conditions": [{
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "PreemptionByScheduler",
            "message": format!("{name}: preempting to accommodate a higher priority pod"),
            "lastTransitionTime": now(),
            "observedGeneration": victim.pod.metadata.generation,
        }]}});
        let patch = Patch::Strategic(condition);
        let (namespace, name) = (victim.namespace(), victim.name());
        gone_is_fine(self.client.patch_status::<Pod>(namespace, name, &patch).await.map(drop))?;
        let params = DeleteParams { uid: Some(victim.uid().to_owned()), ..DeleteParams::default() };
        gone_is_fine(self.client.delete::<Pod>(namespace, name, &params).await)?;
        let message = format!("Preempted by pod {} on node {node}", pod.uid());
        self.recorder.event(&reference(&victim.pod), EventType::Normal, "Preempted", message);
        Ok(())
    }
}

fn names(pod: &Pod) -> (&str, &str) {
    let meta = &pod.metadata;
    (meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""))
}

fn gone_is_fine(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

fn truncated(message: &str) -> String {
    if message.len() <= NOTE_MAX {
        return message.to_owned();
    }
    let mut end = NOTE_MAX - " ...".len();
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{} ...", &message[..end])
}

/// The status change that tells it, if it is not told yet.
pub(crate) fn refusal_patch(
    pod: &Pod,
    reason: Reason,
    message: &str,
    nominated: Option<&str>,
) -> Option<Value> {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let present = conditions.iter().find(|c| c.type_ == "PodScheduled");
    let same = |c: &PodCondition| {
        c.status == "False"
            && c.reason.as_deref() == Some(reason.as_str())
            && c.message.as_deref() == Some(message)
    };
    let known = status.and_then(|s| s.nominated_node_name.as_deref()).unwrap_or("");
    let renominated = nominated.filter(|node| *node != known);
    if present.is_some_and(same) && renominated.is_none() {
        return None;
    }
    let since =
        present.filter(|c| c.status == "False").and_then(|c| c.last_transition_time.as_ref());
    let mut patch = json!({"status": {"conditions": [{
        "type": "PodScheduled",
        "status": "False",
        "reason": reason.as_str(),
        "message": message,
        "lastProbeTime": null,
        "lastTransitionTime": since.map_or_else(now, |t| t.0.to_string()),
        "observedGeneration": pod.metadata.generation,
    }]}});
    match renominated {
        Some("") => patch["status"]["nominatedNodeName"] = Value::Null,
        Some(node) => patch["status"]["nominatedNodeName"] = node.into(),
        None => {}
    }
    Some(patch)
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(status: Value) -> Pod {
        let value = json!({"metadata": {"name": "p", "generation": 3}, "status": status});
        serde_json::from_value(value).expect("a pod")
    }

    #[test]
    fn a_refusal_is_written_once() {
        let told = pod(json!({"conditions": [{"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": "m"}]}));
        let reason = Reason::Unschedulable;
        assert_eq!(refusal_patch(&told, reason, "m", None), None);
        assert!(refusal_patch(&told, reason, "other", None).is_some());
        assert!(refusal_patch(&told, Reason::SchedulerError, "m", None).is_some());
        let nominated = refusal_patch(&told, reason, "m", Some("a")).expect("a patch");
        assert_eq!(nominated["status"]["nominatedNodeName"], "a");
        assert_eq!(nominated["status"]["conditions"][0]["observedGeneration"], 3);
        // A nomination that is not there needs no clearing.
        assert_eq!(refusal_patch(&told, reason, "m", Some("")), None);
        let waits = pod(json!({"nominatedNodeName": "a"}));
        let cleared = refusal_patch(&waits, reason, "m", Some("")).expect("a patch");
        assert_eq!(cleared["status"].get("nominatedNodeName"), Some(&Value::Null));
    }

    #[test]
    fn long_notes_are_cut() {
        let cut = truncated(&"\u{fc}".repeat(1000));
        assert!(cut.len() <= NOTE_MAX && cut.ends_with(" ..."));
        assert_eq!(truncated("short"), "short");
    }
}
