//! The Controller service: what a request must have, which volumes and snapshots it works on, and the
//! functions that do it.

mod change;
mod create;
mod groups;
mod list;
mod parameters;
mod publish;
mod room;
mod snapshots;

use csi::server::{Controller, GroupController};
use csi::v1::*;
use grpc::server::Status;

use crate::Driver;
use crate::capability;
use crate::errors::{invalid, required};
use crate::identity::TOPOLOGY_KEY;
use crate::inner::{Inner, snapshot_claim, volume_claim};
use crate::state::{Origin, Volume as Record, id_of};

impl Inner {
    fn topology(&self) -> Topology {
        let segments = [(TOPOLOGY_KEY.to_owned(), self.config.node.clone())];
        Topology { segments: segments.into() }
    }

    fn volume_answer(&self, record: &Record) -> Volume {
        Volume {
            capacity_bytes: record.size as i64,
            volume_id: record.id.clone(),
            volume_context: Default::default(),
            content_source: content_source(&record.origin),
            accessible_topology: vec![self.topology()],
        }
    }
}

fn content_source(origin: &Origin) -> Option<VolumeContentSource> {
    let kind = match origin {
        Origin::Nothing => return None,
        Origin::Snapshot(id) => ContentSource::Snapshot(SnapshotSource { snapshot_id: id.clone() }),
        Origin::Volume(id) => ContentSource::Volume(VolumeSource { volume_id: id.clone() }),
    };
    Some(VolumeContentSource { kind: Some(kind) })
}

/// What a call that needs a volume's source works on beside the volume.
fn source_claim(source: Option<&VolumeContentSource>) -> Option<String> {
    match source?.kind.as_ref()? {
        ContentSource::Snapshot(snapshot) => Some(snapshot_claim(&snapshot.snapshot_id)),
        ContentSource::Volume(volume) => Some(volume_claim(&volume.volume_id)),
    }
}

impl Controller for Driver {
    async fn create_volume(&self, q: CreateVolumeRequest) -> Result<CreateVolumeResponse, Status> {
        required("name", &q.name)?;
        capability::check(&q.volume_capabilities)?;
        let mut claims = vec![volume_claim(&id_of(&q.name))];
        claims.extend(source_claim(q.volume_content_source.as_ref()));
        let volume = self.run(claims, move |inner| inner.create_volume(&q)).await?;
        Ok(CreateVolumeResponse { volume: Some(volume) })
    }

    async fn delete_volume(&self, q: DeleteVolumeRequest) -> Result<DeleteVolumeResponse, Status> {
        required("volume id", &q.volume_id)?;
        let claims = vec![volume_claim(&q.volume_id)];
        self.run(claims, move |inner| inner.delete_volume(&q.volume_id)).await?;
        Ok(DeleteVolumeResponse {})
    }

    async fn controller_publish_volume(
        &self,
        q: ControllerPublishVolumeRequest,
    ) -> Result<ControllerPublishVolumeResponse, Status> {
        required("volume id", &q.volume_id)?;
        required("node id", &q.node_id)?;
        capability::check(&q.volume_capability)?;
        // All of them, for the limit of the node.
        let claims = vec![volume_claim(&q.volume_id), "the node's publications".to_owned()];
        self.run(claims, move |inner| inner.controller_publish(&q)).await?;
        Ok(ControllerPublishVolumeResponse::default())
    }

    async fn controller_unpublish_volume(
        &self,
        q: ControllerUnpublishVolumeRequest,
    ) -> Result<ControllerUnpublishVolumeResponse, Status> {
        required("volume id", &q.volume_id)?;
        let claims = vec![volume_claim(&q.volume_id)];
        self.run(claims, move |inner| inner.controller_unpublish(&q)).await?;
        Ok(ControllerUnpublishVolumeResponse {})
    }

    async fn validate_volume_capabilities(
        &self,
        q: ValidateVolumeCapabilitiesRequest,
    ) -> Result<ValidateVolumeCapabilitiesResponse, Status> {
        required("volume id", &q.volume_id)?;
        if q.volume_capabilities.is_empty() {
            return Err(invalid("volume capabilities are missing in the request"));
        }
        self.run(vec![], move |inner| inner.validate(q)).await
    }

    async fn list_volumes(&self, q: ListVolumesRequest) -> Result<ListVolumesResponse, Status> {
        self.run(vec![], move |inner| inner.list_volumes(&q)).await
    }

    async fn get_capacity(&self, q: GetCapacityRequest) -> Result<GetCapacityResponse, Status> {
        self.run(vec![], move |inner| inner.capacity(&q)).await
    }

    async fn controller_get_capabilities(
        &self,
        _: ControllerGetCapabilitiesRequest,
    ) -> Result<ControllerGetCapabilitiesResponse, Status> {
        let all = [
            ControllerRpcType::CreateDeleteVolume,
            ControllerRpcType::PublishUnpublishVolume,
            ControllerRpcType::PublishReadonly,
            ControllerRpcType::ListVolumesPublishedNodes,
            ControllerRpcType::ListVolumes,
            ControllerRpcType::GetCapacity,
            ControllerRpcType::CreateDeleteSnapshot,
            ControllerRpcType::ListSnapshots,
            ControllerRpcType::CloneVolume,
            ControllerRpcType::ExpandVolume,
            ControllerRpcType::VolumeCondition,
            ControllerRpcType::GetVolume,
            ControllerRpcType::SingleNodeMultiWriter,
            ControllerRpcType::ModifyVolume,
            ControllerRpcType::GetSnapshot,
        ];
        let rpc = |kind| Some(ControllerRpc { kind: kind as i32 });
        let all = all.into_iter().map(|kind| ControllerServiceCapability { rpc: rpc(kind) });
        Ok(ControllerGetCapabilitiesResponse { capabilities: all.collect() })
    }

    async fn create_snapshot(
        &self,
        q: CreateSnapshotRequest,
    ) -> Result<CreateSnapshotResponse, Status> {
        required("name", &q.name)?;
        required("source volume id", &q.source_volume_id)?;
        parameters::none(&q.parameters)?;
        let claims = vec![volume_claim(&q.source_volume_id), snapshot_claim(&id_of(&q.name))];
        let work = move |inner: &Inner| inner.create_snapshot(&q.name, &q.source_volume_id);
        let snapshot = self.run(claims, work).await?;
        Ok(CreateSnapshotResponse { snapshot: Some(snapshot) })
    }

    async fn delete_snapshot(
        &self,
        q: DeleteSnapshotRequest,
    ) -> Result<DeleteSnapshotResponse, Status> {
        required("snapshot id", &q.snapshot_id)?;
        let claims = vec![snapshot_claim(&q.snapshot_id)];
        self.run(claims, move |inner| inner.delete_snapshot(&q.snapshot_id)).await?;
        Ok(DeleteSnapshotResponse {})
    }

    async fn list_snapshots(
        &self,
        q: ListSnapshotsRequest,
    ) -> Result<ListSnapshotsResponse, Status> {
        self.run(vec![], move |inner| inner.list_snapshots(&q)).await
    }

    async fn get_snapshot(&self, q: GetSnapshotRequest) -> Result<GetSnapshotResponse, Status> {
        required("snapshot id", &q.snapshot_id)?;
        let work = move |inner: &Inner| inner.snapshot(&q.snapshot_id);
        let snapshot = self.run(vec![], work).await?;
        Ok(GetSnapshotResponse { snapshot: Some(snapshots::answer(&snapshot)) })
    }

    async fn controller_expand_volume(
        &self,
        q: ControllerExpandVolumeRequest,
    ) -> Result<ControllerExpandVolumeResponse, Status> {
        required("volume id", &q.volume_id)?;
        let Some(range) = q.capacity_range else {
            return Err(invalid("capacity range is missing in the request"));
        };
        let claims = vec![volume_claim(&q.volume_id)];
        let size = self.run(claims, move |inner| inner.expand(&q.volume_id, &range)).await?;
        // The node makes device and file system longer.
        let node_expansion_required = true;
        Ok(ControllerExpandVolumeResponse { capacity_bytes: size as i64, node_expansion_required })
    }

    async fn controller_get_volume(
        &self,
        q: ControllerGetVolumeRequest,
    ) -> Result<ControllerGetVolumeResponse, Status> {
        required("volume id", &q.volume_id)?;
        self.run(vec![], move |inner| inner.get_volume(&q.volume_id)).await
    }

    async fn controller_modify_volume(
        &self,
        q: ControllerModifyVolumeRequest,
    ) -> Result<ControllerModifyVolumeResponse, Status> {
        required("volume id", &q.volume_id)?;
        let claims = vec![volume_claim(&q.volume_id)];
        self.run(claims, move |inner| inner.modify(&q.volume_id, &q.mutable_parameters)).await?;
        Ok(ControllerModifyVolumeResponse {})
    }
}

impl GroupController for Driver {
    async fn group_controller_get_capabilities(
        &self,
        _: GroupControllerGetCapabilitiesRequest,
    ) -> Result<GroupControllerGetCapabilitiesResponse, Status> {
        let kind = GroupControllerRpcType::CreateDeleteGetVolumeGroupSnapshot as i32;
        let rpc = Some(GroupControllerRpc { kind });
        let capabilities = vec![GroupControllerServiceCapability { rpc }];
        Ok(GroupControllerGetCapabilitiesResponse { capabilities })
    }

    async fn create_volume_group_snapshot(
        &self,
        q: CreateVolumeGroupSnapshotRequest,
    ) -> Result<CreateVolumeGroupSnapshotResponse, Status> {
        required("name", &q.name)?;
        parameters::none(&q.parameters)?;
        let sources = groups::sources(&q.source_volume_ids)?;
        let mut claims: Vec<String> = sources.iter().map(|id| volume_claim(id)).collect();
        claims.push(groups::claim(&id_of(&q.name)));
        let group = self.run(claims, move |inner| inner.create_group(&q.name, &sources)).await?;
        Ok(CreateVolumeGroupSnapshotResponse { group_snapshot: Some(group) })
    }

    async fn delete_volume_group_snapshot(
        &self,
        q: DeleteVolumeGroupSnapshotRequest,
    ) -> Result<DeleteVolumeGroupSnapshotResponse, Status> {
        required("group snapshot id", &q.group_snapshot_id)?;
        let claims = vec![groups::claim(&q.group_snapshot_id)];
        let work = move |inner: &Inner| inner.delete_group(&q.group_snapshot_id, &q.snapshot_ids);
        self.run(claims, work).await?;
        Ok(DeleteVolumeGroupSnapshotResponse {})
    }

    async fn get_volume_group_snapshot(
        &self,
        q: GetVolumeGroupSnapshotRequest,
    ) -> Result<GetVolumeGroupSnapshotResponse, Status> {
        required("group snapshot id", &q.group_snapshot_id)?;
        let work = move |inner: &Inner| inner.get_group(&q.group_snapshot_id, &q.snapshot_ids);
        let group = self.run(vec![], work).await?;
        Ok(GetVolumeGroupSnapshotResponse { group_snapshot: Some(group) })
    }
}
