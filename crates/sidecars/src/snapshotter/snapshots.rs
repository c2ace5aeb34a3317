//! A snapshot: its content is found or made, and its status follows the content's.

use client::{DeleteParams, Error};
use k8s_openapi::api::core::v1::PersistentVolume;
use serde_json::json;

use super::types::{VolumeSnapshot, VolumeSnapshotContent};
use super::{MANAGED_BY, SNAPSHOT_FINALIZERS, Snapshotter, failed, plan};
use crate::claims::{handle, is_at};
use crate::metadata::{name, namespace};

impl Snapshotter {
    pub(super) async fn sync_snapshot(&self, snapshot: &VolumeSnapshot) -> Result<(), Error> {
        if snapshot.metadata.deletion_timestamp.is_some() {
            return self.end(snapshot).await;
        }
        let content = match &snapshot.spec.source.persistent_volume_claim_name {
            Some(claim) => self.content_of_claim(snapshot, claim).await?,
            None => self.given_content(snapshot).await?,
        };
        let Some(content) = content else { return Ok(()) };
        self.set_finalizers(snapshot, &SNAPSHOT_FINALIZERS, true).await?;
        if content.status.snapshot_handle.is_none() {
            // Its own key makes the driver's snapshot.
            return Ok(());
        }
        let was_ready = snapshot.status.ready_to_use == Some(true);
        let bound = snapshot.status.bound_volume_snapshot_content_name.is_some();
        if was_ready && bound {
            return Ok(());
        }
        self.patch_status(snapshot, plan::snapshot_status(&content)).await?;
        let text = format!("{}/{}", namespace(&snapshot.metadata), name(&snapshot.metadata));
        let created = format!("Snapshot {text} was successfully created by the CSI driver.");
        self.context.event(snapshot, "SnapshotCreated", created);
        if content.status.ready_to_use == Some(true) {
            self.context.event(
                snapshot,
                "SnapshotReady",
                format!("Snapshot {text} is ready to use."),
            );
        }
        Ok(())
    }

    /// None when it is another node's, or cannot be made yet.
    async fn content_of_claim(
        &self,
        snapshot: &VolumeSnapshot,
        claim: &str,
    ) -> Result<Option<VolumeSnapshotContent>, Error> {
        if let Some(known) = self.contents.get("", &plan::content_name(snapshot)) {
            return Ok(self.is_own(&known).then(|| known.as_ref().clone()));
        }
        let volume = match self.volume_of(snapshot, claim) {
            Ok(volume) => volume,
            Err(why) => return self.set_error(snapshot, &why).await.map(|()| None),
        };
        let driver = &self.context.config.driver;
        let Some(volume_handle) = handle(&volume, driver) else { return Ok(None) };
        if !is_at(&volume, &self.context.topology) {
            return Ok(None);
        }
        let mode = volume.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref());
        let content = plan::class(snapshot, &self.classes.list(), driver).and_then(|class| {
            plan::content(snapshot, &class, (volume_handle, mode), &self.context.config.node)
        });
        let content = match content {
            Ok(content) => content,
            Err(why) => return self.set_error(snapshot, &why).await.map(|()| None),
        };
        // Before there is something to protect.
        self.set_finalizers(snapshot, &SNAPSHOT_FINALIZERS, true).await?;
        match self.context.client.create("", &content).await {
            Err(error) if error.is_already_exists() => return Ok(None),
            made => drop(made?),
        }
        let text = format!("{}/{}", namespace(&snapshot.metadata), name(&snapshot.metadata));
        let message = format!("Waiting for a snapshot {text} to be created by the CSI driver.");
        self.context.event(snapshot, "CreatingSnapshot", message);
        Ok(None)
    }

    fn volume_of(
        &self,
        snapshot: &VolumeSnapshot,
        claim: &str,
    ) -> Result<std::sync::Arc<PersistentVolume>, String> {
        let space = namespace(&snapshot.metadata);
        let found = self.claims.get(space, claim).ok_or_else(|| {
            format!("Failed to create snapshot content with error snapshot controller failed to update {} on API server: cannot get claim from snapshot", name(&snapshot.metadata))
        })?;
        let bound = found.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
        let volume = found.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
        let volume = volume.filter(|_| bound).and_then(|volume| self.volumes.get("", volume));
        volume.ok_or_else(|| {
            format!("Failed to create snapshot content with error the PVC {claim} is not yet bound to a PV, will not attempt to take a snapshot")
        })
    }

    /// The content that a snapshot names.
    async fn given_content(
        &self,
        snapshot: &VolumeSnapshot,
    ) -> Result<Option<VolumeSnapshotContent>, Error> {
        let own = plan::content_name(snapshot);
        let Some(content) = self.contents.get("", &own) else {
            let why = format!("VolumeSnapshotContent {own} is missing");
            return self.set_error(snapshot, &why).await.map(|()| None);
        };
        if !self.is_own(&content) {
            return Ok(None);
        }
        if let Err(why) = plan::is_for(&content, snapshot) {
            return self.set_error(snapshot, &why).await.map(|()| None);
        }
        if content.spec.volume_snapshot_ref.uid.is_empty() {
            let uid = &snapshot.metadata.uid;
            let bind = json!({"spec": {"volumeSnapshotRef": {"uid": uid}}});
            self.patch(&*content, bind).await?;
        }
        Ok(Some(content.as_ref().clone()))
    }

    pub(super) fn is_own(&self, content: &VolumeSnapshotContent) -> bool {
        let labels = content.metadata.labels.as_ref();
        let node = labels.and_then(|labels| labels.get(MANAGED_BY));
        content.spec.driver == self.context.config.driver && node == Some(&self.context.config.node)
    }

    pub(super) async fn set_error(
        &self,
        snapshot: &VolumeSnapshot,
        why: &str,
    ) -> Result<(), Error> {
        let known = snapshot.status.error.as_ref().and_then(|error| error.message.as_deref());
        if known == Some(why) {
            return Ok(());
        }
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let status = json!({"readyToUse": false, "error": {"message": why, "time": now}});
        self.patch_status(snapshot, status).await?;
        self.context.warn(snapshot, "SnapshotContentCreationFailed", why);
        Ok(())
    }

    /// A snapshot that goes takes its content along, unless that is to be kept.
    async fn end(&self, snapshot: &VolumeSnapshot) -> Result<(), Error> {
        let Some(content) = self.contents.get("", &plan::content_name(snapshot)) else {
            return self.set_finalizers(snapshot, &SNAPSHOT_FINALIZERS, false).await;
        };
        if plan::is_for(&content, snapshot).is_err() || content.spec.deletion_policy == "Retain" {
            return self.set_finalizers(snapshot, &SNAPSHOT_FINALIZERS, false).await;
        }
        if !self.is_own(&content) || content.metadata.deletion_timestamp.is_some() {
            // The content's end brings it back here.
            return Ok(());
        }
        let params = DeleteParams { uid: content.metadata.uid.clone(), ..DeleteParams::default() };
        let own = name(&content.metadata);
        match self.context.client.delete::<VolumeSnapshotContent>("", own, &params).await {
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(failed(error.to_string())),
            Ok(()) => Ok(()),
        }
    }
}
