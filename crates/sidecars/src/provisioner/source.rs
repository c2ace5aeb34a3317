//! What a claim's volume is made of: another claim's volume, or a snapshot.

use csi::v1::*;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use super::{Provisioner, text};
use crate::claims::handle;
use crate::metadata::{name, namespace};
use crate::snapshotter::MANAGED_BY;
use crate::snapshotter::types::GROUP;

impl Provisioner {
    /// None for an empty volume.
    pub(super) fn source(
        &self,
        claim: &PersistentVolumeClaim,
    ) -> Result<Option<VolumeContentSource>, String> {
        let Some(spec) = claim.spec.as_ref() else { return Ok(None) };
        if let Some(of) = spec.data_source_ref.as_ref()
            && of.namespace.as_deref().is_some_and(|space| space != namespace(&claim.metadata))
        {
            return Err("data sources in other namespaces are not supported".into());
        }
        let Some(of) = spec.data_source.as_ref() else { return Ok(None) };
        let group = of.api_group.as_deref().unwrap_or("");
        let kind = match (group, of.kind.as_str()) {
            ("", "PersistentVolumeClaim") => {
                let volume_id = self.handle_of(claim, &of.name)?;
                ContentSource::Volume(VolumeSource { volume_id })
            }
            (GROUP, "VolumeSnapshot") => {
                let snapshot_id = self.snapshot_of(claim, &of.name)?;
                ContentSource::Snapshot(SnapshotSource { snapshot_id })
            }
            (group, kind) => {
                return Err(format!(
                    "data source {group}/{kind} is not supported by this provisioner"
                ));
            }
        };
        Ok(Some(VolumeContentSource { kind: Some(kind) }))
    }

    /// The handle of a claim's volume that can be cloned for this one.
    fn handle_of(&self, for_claim: &PersistentVolumeClaim, own: &str) -> Result<String, String> {
        let failed = |why: String| {
            format!(
                "error getting handle for DataSource Type PersistentVolumeClaim by Name {own}: {why}"
            )
        };
        let space = namespace(&for_claim.metadata);
        let source = self.claims.get(space, own);
        let source = source.ok_or_else(|| {
            failed(format!("error getting PVC {own} (namespace {space:?}) from api server"))
        })?;
        if source.metadata.deletion_timestamp.is_some() {
            return Err(failed(format!("the source PVC {own} is being deleted")));
        }
        let phase = source.status.as_ref().and_then(|status| status.phase.as_deref());
        if phase != Some("Bound") {
            return Err(failed(format!("the PVC {} is not bound", text(&source))));
        }
        let volume = source.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
        let volume = volume.and_then(|volume| self.volumes.get("", volume));
        let volume = volume.ok_or_else(|| failed("its volume is not there".into()))?;
        match handle(&volume, &self.context.config.driver) {
            Some(handle) => Ok(handle.to_owned()),
            None => Err(failed(format!("volume {} is of another driver", name(&volume.metadata)))),
        }
    }

    /// The driver's name of a snapshot that is ready and on this node.
    fn snapshot_of(&self, for_claim: &PersistentVolumeClaim, own: &str) -> Result<String, String> {
        let failed = |why: &str| {
            format!("error getting handle for DataSource Type VolumeSnapshot by Name {own}: {why}")
        };
        let found = self.snapshots.get(namespace(&for_claim.metadata), own);
        let found = found.ok_or_else(|| failed("error getting snapshot from api server"))?;
        if found.metadata.deletion_timestamp.is_some() {
            return Err(failed("snapshot is currently being deleted"));
        }
        if found.status.ready_to_use != Some(true) {
            return Err(failed("snapshot is not Ready"));
        }
        let content = found.status.bound_volume_snapshot_content_name.as_deref();
        let content = content.and_then(|content| self.contents.get("", content));
        let content = content.ok_or_else(|| failed("its content is not there"))?;
        let node = content.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY));
        match (&content.status.snapshot_handle, node) {
            _ if content.spec.driver != self.context.config.driver => {
                Err(failed("the snapshot is of another driver"))
            }
            (Some(handle), Some(node)) if *node == self.context.config.node => Ok(handle.clone()),
            (Some(_), Some(node)) => Err(failed(&format!(
                "the snapshot is on node {node}, and the volume would be on {}",
                self.context.config.node
            ))),
            _ => Err(failed("the snapshot has no handle")),
        }
    }
}
