//! A static pod's status: the actor keeps it, and writes it to the mirror when there is one.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodStatus};

use super::actor::{Actor, revision};

impl Actor {
    /// The API's object that gets the status; a static pod keeps its status itself, too, and may have
    /// none there.
    pub(super) fn shown(&mut self, new: &PodStatus) -> Option<Arc<Pod>> {
        if !self.is_static {
            return Some(self.pod.clone());
        }
        if self.pod.status.as_ref() != Some(new) {
            Arc::make_mut(&mut self.pod).status = Some(new.clone());
            self.shared.pods.set_status(&self.user.uid, new);
        }
        self.memory.status_written |= self.mirror.is_none();
        self.mirror.clone()
    }

    /// A mirror from an earlier run of the agent is the memory of that run.
    pub(super) fn mirror_changed(&mut self, mirror: Option<Arc<Pod>>) {
        let uid = |mirror: &Option<Arc<Pod>>| mirror.as_ref().and_then(|m| m.metadata.uid.clone());
        if uid(&mirror) != uid(&self.mirror) {
            self.written = None;
        } else if let (Some(new), Some(old)) = (&mirror, &self.mirror)
            && revision(new) < revision(old)
        {
            return;
        }
        let started = |status: &&PodStatus| status.start_time.is_some();
        let status = mirror.as_ref().and_then(|m| m.status.as_ref()).filter(started);
        if let Some(status) = status {
            Arc::make_mut(&mut self.pod).status = Some(status.clone());
        }
        self.mirror = mirror;
        self.dirty = true;
    }
}
