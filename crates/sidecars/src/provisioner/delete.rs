//! Volumes that claims have left: deleted with what is behind them, if they say so.

use client::{Action, DeleteParams, Error, Patch};
use csi::v1::DeleteVolumeRequest;
use k8s_openapi::api::core::v1::PersistentVolume;
use serde_json::json;

use super::Provisioner;
use super::plan::{FINALIZER, PROVISIONED_BY};
use crate::claims::{handle, is_at};
use crate::context::Context;
use crate::metadata::{annotation, has_finalizer, name, uid};

/// What is to be done with a volume's object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    /// Delete what is behind it, then the object.
    Delete,
    /// Let the object go, and keep what is behind it.
    Release,
    /// Hold the object until what is behind it is deleted.
    Hold,
}

pub(super) fn step(volume: &PersistentVolume, context: &Context) -> Step {
    let driver = &context.config.driver;
    let meta = &volume.metadata;
    let ours = annotation(meta, PROVISIONED_BY) == Some(driver)
        && handle(volume, driver).is_some()
        && is_at(volume, &context.topology);
    if !ours {
        return Step::Nothing;
    }
    let spec = volume.spec.as_ref();
    let deletes =
        spec.and_then(|s| s.persistent_volume_reclaim_policy.as_deref()) == Some("Delete");
    let held = has_finalizer(meta, FINALIZER);
    let released = volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Released");
    let going = meta.deletion_timestamp.is_some();
    match (deletes, held) {
        (false, true) => Step::Release,
        (false, false) => Step::Nothing,
        (true, true) if released => Step::Delete,
        (true, false) if released && !going => Step::Delete,
        (true, false) if !going => Step::Hold,
        (true, _) => Step::Nothing,
    }
}

impl Provisioner {
    pub(super) async fn sync_volume(&self, volume: &PersistentVolume) -> Result<Action, Error> {
        match step(volume, &self.context) {
            Step::Nothing => Ok(Action::Done),
            Step::Hold => self.set_finalizer(volume, true).await,
            Step::Release => self.set_finalizer(volume, false).await,
            Step::Delete => self.delete(volume).await,
        }
    }

    async fn delete(&self, volume: &PersistentVolume) -> Result<Action, Error> {
        let id = handle(volume, &self.context.config.driver).unwrap_or_default();
        let request = DeleteVolumeRequest { volume_id: id.to_owned(), secrets: Vec::new() };
        if let Err(error) = self.context.csi.delete_volume(&request).await {
            let message = error.go_text();
            self.context.warn(volume, "VolumeFailedDelete", message.clone());
            return Err(api::Status::failure(500, "InternalError", message).into());
        }
        let meta = &volume.metadata;
        if meta.deletion_timestamp.is_none() {
            let params =
                DeleteParams { uid: Some(uid(meta).to_owned()), ..DeleteParams::default() };
            match self.context.client.delete::<PersistentVolume>("", name(meta), &params).await {
                Err(error) if error.is_not_found() => return Ok(Action::Done),
                deleted => deleted?,
            }
        }
        self.set_finalizer(volume, false).await
    }

    async fn set_finalizer(&self, volume: &PersistentVolume, held: bool) -> Result<Action, Error> {
        let own = name(&volume.metadata);
        // As it is now: the deletion has changed it.
        let now = match self.context.client.get::<PersistentVolume>("", own).await {
            Err(error) if error.is_not_found() => return Ok(Action::Done),
            now => now?,
        };
        let mut finalizers = now.metadata.finalizers.clone().unwrap_or_default();
        finalizers.retain(|finalizer| finalizer != FINALIZER);
        if held {
            finalizers.push(FINALIZER.to_owned());
        }
        let patch = json!({"metadata": {"uid": now.metadata.uid,
            "resourceVersion": now.metadata.resource_version, "finalizers": finalizers}});
        let patch = Patch::Merge(patch);
        match self.context.client.patch::<PersistentVolume>("", own, &patch).await {
            Err(error) if error.is_not_found() => Ok(Action::Done),
            patched => patched.map(|_| Action::Done),
        }
    }
}
