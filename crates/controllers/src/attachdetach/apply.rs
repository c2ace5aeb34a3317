//! The writes and events of a plan.

use client::{Action, DeleteParams, Error, EventType, Patch};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::storage::v1::{
    VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use super::AttachDetach;
use super::plan::{Detach, Plan};
use super::volumes::{Volume, claims, in_use};
use crate::meta::{name, namespace, reference};

const FAILED: &str = "FailedAttachVolume";

impl AttachDetach {
    pub(super) async fn apply(
        &self,
        own: &str,
        node: Option<&Node>,
        plan: Plan,
    ) -> Result<Action, Error> {
        self.remember(own, &plan);
        if let (Some(node), Some(report)) = (node, &plan.report) {
            // The whole list: nobody else writes it.
            let patch = Patch::Merge(json!({
                "metadata": {"uid": node.metadata.uid},
                "status": {"volumesAttached": report},
            }));
            match self.client.patch_status::<Node>("", own, &patch).await {
                // Gone, or another node has its name by now.
                Err(error) if error.is_not_found() || error.is_conflict() => {
                    return Ok(Action::Done);
                }
                other => drop(other?),
            }
        }
        for volume in &plan.succeeded {
            let message = format!("AttachVolume.Attach succeeded for volume {:?} ", volume.name);
            self.tell_all(volume, EventType::Normal, "SuccessfulAttachVolume", &message);
        }
        for (volume, why) in &plan.failed {
            let message =
                format!("AttachVolume.Attach failed for volume {:?} : {why}", volume.name);
            if self.is_news(&volume.attachment, &message) {
                self.tell_all(volume, EventType::Warning, FAILED, &message);
            }
        }
        for (volume, nodes) in &plan.blocked {
            self.tell_blocked(volume, nodes);
        }
        self.detach(own, &plan.detach).await?;
        for volume in &plan.attach {
            match self.client.create("", &attachment(volume, own)).await {
                // Made before, and not seen yet.
                Err(error) if error.is_already_exists() => {}
                other => drop(other?),
            }
        }
        Ok(plan.after.map_or(Action::Done, Action::After))
    }

    /// Deletes attachments. The node that is seen may be older than its latest mount: it is asked for, after
    /// it was told that the volumes are no longer attached.
    async fn detach(&self, own: &str, all: &[Detach]) -> Result<(), Error> {
        let mut mounted: Vec<String> = Vec::new();
        if all.iter().any(|detach| detach.unless_mounted.is_some()) {
            match self.client.get::<Node>("", own).await {
                Ok(node) => mounted = in_use(&node).to_vec(),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        for detach in all {
            // The node's change brings it here again.
            if detach.unless_mounted.as_ref().is_some_and(|volume| mounted.contains(volume)) {
                continue;
            }
            let params = DeleteParams::default();
            match self.client.delete::<VolumeAttachment>("", &detach.attachment, &params).await {
                Err(error) if error.is_not_found() => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn remember(&self, own: &str, plan: &Plan) {
        let mut memory = self.memory();
        match plan.blocked.is_empty() {
            true => memory.blocked.remove(own),
            false => memory.blocked.insert(own.to_owned()),
        };
        for attachment in &plan.used {
            memory.unused.remove(attachment);
        }
        for detach in &plan.detach {
            memory.told.remove(&detach.attachment);
        }
        for volume in &plan.succeeded {
            memory.told.remove(&volume.attachment);
        }
    }

    /// Whether this trouble was not told last.
    fn is_news(&self, attachment: &str, message: &str) -> bool {
        let before = self.memory().told.insert(attachment.to_owned(), message.to_owned());
        before.as_deref() != Some(message)
    }

    fn tell_all(&self, volume: &Volume, kind: EventType, reason: &str, message: &str) {
        for pod in &volume.pods {
            self.recorder.event(&reference(&**pod), kind, reason, message);
        }
    }

    fn tell_blocked(&self, volume: &Volume, nodes: &[String]) {
        let users: Vec<_> = nodes.iter().flat_map(|node| self.on_node.get(node)).collect();
        let users: Vec<&Pod> =
            users.iter().map(|pod| &**pod).filter(|pod| self.uses(pod, volume)).collect();
        let mut news = String::new();
        for pod in &volume.pods {
            let message = blocked(volume, pod, &users);
            news += &message;
            news += name(&pod.metadata);
        }
        if self.is_news(&volume.attachment, &news) {
            for pod in &volume.pods {
                let message = blocked(volume, pod, &users);
                self.recorder.event(&reference(&**pod), EventType::Warning, FAILED, message);
            }
        }
    }

    fn uses(&self, pod: &Pod, volume: &Volume) -> bool {
        let space = namespace(&pod.metadata);
        claims(pod).any(|claim| {
            let claim = self.claims.get(space, &claim);
            let bound = claim.as_ref().and_then(|c| c.spec.as_ref()?.volume_name.as_ref());
            bound == Some(&volume.name)
        })
    }
}

/// Why the pod's volume cannot be attached. Who reads it sees no names of other namespaces.
pub(super) fn blocked(volume: &Volume, pod: &Pod, users: &[&Pod]) -> String {
    let space = namespace(&pod.metadata);
    let (near, far): (Vec<&Pod>, Vec<&Pod>) =
        users.iter().partition(|user| namespace(&user.metadata) == space);
    let names: Vec<&str> = near.iter().map(|user| name(&user.metadata)).collect();
    let why = match (names.as_slice(), far.len()) {
        ([], 0) => "Volume is already exclusively attached to one node and can't be attached to \
                    another"
            .to_owned(),
        ([], others) => {
            format!("Volume is already used by {others} pod(s) in different namespaces")
        }
        (names, 0) => format!("Volume is already used by pod(s) {}", names.join(", ")),
        (names, others) => format!(
            "Volume is already used by pod(s) {} and {others} pod(s) in different namespaces",
            names.join(", ")
        ),
    };
    format!("Multi-Attach error for volume {:?} {why}", volume.name)
}

fn attachment(volume: &Volume, node: &str) -> VolumeAttachment {
    VolumeAttachment {
        metadata: ObjectMeta { name: Some(volume.attachment.clone()), ..ObjectMeta::default() },
        spec: VolumeAttachmentSpec {
            attacher: volume.driver.clone(),
            node_name: node.to_owned(),
            source: VolumeAttachmentSource {
                persistent_volume_name: Some(volume.name.clone()),
                inline_volume_spec: None,
            },
        },
        status: None,
    }
}
