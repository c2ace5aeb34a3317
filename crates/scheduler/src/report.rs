//! What the scheduler tells the API: bindings, refusals, preemptions.

use std::sync::Arc;

use client::{Client, DeleteParams, Error, EventType, Patch, Recorder};
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use crate::plan::Unfit;
use crate::pod::PodInfo;
use crate::preempt::Victims;

#[derive(Debug, Clone)]
pub(crate) struct Reporter {
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
    pub(crate) scheduler_name: String,
}

impl Reporter {
    pub(crate) async fn bind(&self, pod: &PodInfo, node: &str) -> Result<(), Error> {
        let binding = Binding {
            metadata: ObjectMeta {
                name: pod.pod.metadata.name.clone(),
                namespace: pod.pod.metadata.namespace.clone(),
                uid: pod.pod.metadata.uid.clone(),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                kind: Some("Node".into()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            },
        };
        let (namespace, name) = (pod.namespace(), pod.name());
        let answer =
            self.client.post_subresource::<Pod, _, Value>(namespace, name, "binding", &binding);
        answer.await?;
        let message = format!("Successfully assigned {namespace}/{name} to {node}");
        self.recorder.event(&reference(&pod.pod), EventType::Normal, "Scheduled", message);
        Ok(())
    }

    pub(crate) fn bind_failed(&self, pod: &PodInfo, error: &Error) {
        let message = format!("binding rejected: {error}");
        let about = reference(&pod.pod);
        self.recorder.event(&about, EventType::Warning, "FailedScheduling", message);
    }

    /// Tells why the pod has no node, and makes room if that was planned.
    pub(crate) async fn unfit(&self, pod: &PodInfo, unfit: &Unfit) -> Result<(), Error> {
        let about = reference(&pod.pod);
        let kind = EventType::Warning;
        self.recorder.event(&about, kind, "FailedScheduling", unfit.message.as_str());
        let nominated = unfit.victims.as_ref().map(|v| v.node.as_str());
        if let Some(patch) = refusal_patch(&pod.pod, &unfit.message, nominated) {
            let patch = Patch::Strategic(patch);
            self.client.patch_status::<Pod>(pod.namespace(), pod.name(), &patch).await?;
        }
        match &unfit.victims {
            Some(victims) => self.evict(pod, victims).await,
            None => Ok(()),
        }
    }

    async fn evict(&self, pod: &PodInfo, victims: &Victims) -> Result<(), Error> {
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
        }]}});
        let patch = Patch::Strategic(condition);
        let (namespace, name) = (victim.namespace(), victim.name());
        gone_is_fine(self.client.patch_status::<Pod>(namespace, name, &patch).await.map(drop))?;
        let params = DeleteParams { uid: Some(victim.uid().to_owned()), ..DeleteParams::default() };
        gone_is_fine(self.client.delete::<Pod>(namespace, name, &params).await)?;
        let message = format!("Preempted by pod {} on node {node}", pod.uid());
        let about = reference(&victim.pod);
        self.recorder.event(&about, EventType::Normal, "Preempted", message);
        Ok(())
    }
}

fn gone_is_fine(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

/// The status change that says "unschedulable", if it is not there yet.
pub(crate) fn refusal_patch(pod: &Pod, message: &str, nominated: Option<&str>) -> Option<Value> {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let present = conditions.iter().find(|c| c.type_ == "PodScheduled");
    let same = |c: &PodCondition| {
        c.status == "False"
            && c.reason.as_deref() == Some("Unschedulable")
            && c.message.as_deref() == Some(message)
    };
    let known = status.and_then(|s| s.nominated_node_name.as_deref());
    let renominated = nominated.is_some() && nominated != known;
    if present.is_some_and(same) && !renominated {
        return None;
    }
    let since =
        present.filter(|c| c.status == "False").and_then(|c| c.last_transition_time.as_ref());
    let mut patch = json!({"status": {"conditions": [{
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
        "lastProbeTime": null,
        "lastTransitionTime": since.map_or_else(now, |t| t.0.to_string()),
        "observedGeneration": pod.metadata.generation,
    }]}});
    if let (true, Some(node)) = (renominated, nominated) {
        patch["status"]["nominatedNodeName"] = node.into();
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
