//! A content: the driver makes its snapshot, or deletes it.

use client::Error;
use csi::v1::{CreateSnapshotRequest, DeleteSnapshotRequest, ListSnapshotsRequest, Snapshot};
use serde_json::json;

use super::types::{VolumeSnapshot, VolumeSnapshotContent};
use super::{CONTENT_FINALIZER, MANAGED_BY, Snapshotter, failed, plan};
use crate::metadata::{name, uid};

impl Snapshotter {
    pub(super) async fn sync_content(&self, content: &VolumeSnapshotContent) -> Result<(), Error> {
        if content.spec.driver != self.context.config.driver {
            return Ok(());
        }
        if !self.is_own(content) {
            return self.adopt(content).await;
        }
        if content.metadata.deletion_timestamp.is_some() {
            return self.end_content(content).await;
        }
        if content.status.snapshot_handle.is_some() {
            return Ok(());
        }
        match &content.spec.source.volume_handle {
            Some(volume) => self.make(content, volume).await,
            None => Ok(()),
        }
    }

    fn snapshot_of(
        &self,
        content: &VolumeSnapshotContent,
    ) -> Option<std::sync::Arc<VolumeSnapshot>> {
        let of = &content.spec.volume_snapshot_ref;
        let found = self.snapshots.get(&of.namespace, &of.name)?;
        (of.uid.is_empty() || uid(&found.metadata) == of.uid).then_some(found)
    }

    async fn make(&self, content: &VolumeSnapshotContent, volume: &str) -> Result<(), Error> {
        let request = CreateSnapshotRequest {
            source_volume_id: volume.to_owned(),
            name: format!("snapshot-{}", content.spec.volume_snapshot_ref.uid),
            ..Default::default()
        };
        match self.context.csi.create_snapshot(&request).await {
            Ok(answer) => {
                let made = answer.snapshot.unwrap_or_default();
                self.patch_status(content, plan::content_status(&made)).await
            }
            Err(error) => {
                let why = format!(
                    "Failed to check and update snapshot content: failed to take snapshot of the volume {volume}: \"{}\"",
                    error.go_text()
                );
                if let Some(snapshot) = self.snapshot_of(content) {
                    self.set_error(&snapshot, &why).await?;
                }
                Err(failed(why))
            }
        }
    }

    /// A content of a snapshot that users know to be there is its node's.
    async fn adopt(&self, content: &VolumeSnapshotContent) -> Result<(), Error> {
        let labels = content.metadata.labels.as_ref();
        let (Some(snapshot_id), false) = (
            &content.spec.source.snapshot_handle,
            labels.is_some_and(|labels| labels.contains_key(MANAGED_BY)),
        ) else {
            return Ok(());
        };
        let Some(found) = self.find(snapshot_id).await? else { return Ok(()) };
        self.patch_status(content, plan::content_status(&found)).await?;
        let node = &self.context.config.node;
        self.patch(content, json!({"metadata": {"labels": {MANAGED_BY: node}}})).await?;
        self.set_finalizers_now(content).await
    }

    /// After other changes of the same object: without its revision.
    async fn set_finalizers_now(&self, content: &VolumeSnapshotContent) -> Result<(), Error> {
        let mut finalizers = content.metadata.finalizers.clone().unwrap_or_default();
        if !finalizers.iter().any(|own| own == CONTENT_FINALIZER) {
            finalizers.push(CONTENT_FINALIZER.to_owned());
        }
        self.patch(content, json!({"metadata": {"finalizers": finalizers}})).await
    }

    async fn find(&self, snapshot_id: &str) -> Result<Option<Snapshot>, Error> {
        let request =
            ListSnapshotsRequest { snapshot_id: snapshot_id.to_owned(), ..Default::default() };
        let found = self.context.csi.list_snapshots(&request).await;
        let found = found.map_err(|error| failed(error.go_text()))?;
        Ok(found.entries.into_iter().find_map(|entry| entry.snapshot))
    }

    async fn end_content(&self, content: &VolumeSnapshotContent) -> Result<(), Error> {
        let bound = self.snapshot_of(content);
        if bound.is_some_and(|snapshot| snapshot.metadata.deletion_timestamp.is_none()) {
            // Protected by the snapshot that is bound to it.
            return Ok(());
        }
        let handle = content.status.snapshot_handle.as_ref();
        let handle = handle.or(content.spec.source.snapshot_handle.as_ref());
        if let (Some(handle), "Delete") = (handle, content.spec.deletion_policy.as_str()) {
            let request =
                DeleteSnapshotRequest { snapshot_id: handle.clone(), secrets: Vec::new() };
            if let Err(error) = self.context.csi.delete_snapshot(&request).await {
                let why = format!("Failed to delete snapshot: {}", error.go_text());
                self.context.warn(content, "SnapshotDeleteError", why.clone());
                return Err(failed(why));
            }
        }
        tracing::debug!(content = name(&content.metadata), "the content is let go");
        self.set_finalizers(content, &[CONTENT_FINALIZER], false).await
    }
}
