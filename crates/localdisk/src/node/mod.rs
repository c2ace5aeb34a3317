//! The Node service: what a request must have, and the functions that do it.

mod expand;
mod publish;
mod stage;
mod stats;

use csi::server::Node;
use csi::v1::*;
use grpc::server::Status;

use crate::Driver;
use crate::capability;
use crate::errors::{invalid, required};
use crate::identity::TOPOLOGY_KEY;
use crate::inner::{Inner, volume_claim};

/// Refuses paths that do not name a place by themselves.
fn absolute(field: &str, path: &str) -> Result<(), Status> {
    required(field, path)?;
    let path = std::path::Path::new(path);
    let plain = path.components().all(|c| !matches!(c, std::path::Component::ParentDir));
    match path.is_absolute() && plain {
        true => Ok(()),
        false => Err(invalid(format!("{field} {path:?} is not an absolute path"))),
    }
}

fn offered(of: Option<VolumeCapability>) -> Result<VolumeCapability, Status> {
    capability::check(&of)?;
    of.ok_or_else(|| invalid("volume capability is missing in the request"))
}

impl Node for Driver {
    async fn node_stage_volume(
        &self,
        q: NodeStageVolumeRequest,
    ) -> Result<NodeStageVolumeResponse, Status> {
        required("volume id", &q.volume_id)?;
        absolute("staging target path", &q.staging_target_path)?;
        let capability = offered(q.volume_capability)?;
        let claims = vec![volume_claim(&q.volume_id)];
        let work =
            move |inner: &Inner| inner.stage(&q.volume_id, &q.staging_target_path, &capability);
        self.run(claims, work).await?;
        Ok(NodeStageVolumeResponse {})
    }

    async fn node_unstage_volume(
        &self,
        q: NodeUnstageVolumeRequest,
    ) -> Result<NodeUnstageVolumeResponse, Status> {
        required("volume id", &q.volume_id)?;
        absolute("staging target path", &q.staging_target_path)?;
        let claims = vec![volume_claim(&q.volume_id)];
        let work = move |inner: &Inner| inner.unstage(&q.volume_id, &q.staging_target_path);
        self.run(claims, work).await?;
        Ok(NodeUnstageVolumeResponse {})
    }

    async fn node_publish_volume(
        &self,
        q: NodePublishVolumeRequest,
    ) -> Result<NodePublishVolumeResponse, Status> {
        required("volume id", &q.volume_id)?;
        absolute("target path", &q.target_path)?;
        let capability = offered(q.volume_capability.clone())?;
        let claims = vec![volume_claim(&q.volume_id)];
        self.run(claims, move |inner| inner.publish(&q, &capability)).await?;
        Ok(NodePublishVolumeResponse {})
    }

    async fn node_unpublish_volume(
        &self,
        q: NodeUnpublishVolumeRequest,
    ) -> Result<NodeUnpublishVolumeResponse, Status> {
        required("volume id", &q.volume_id)?;
        absolute("target path", &q.target_path)?;
        let claims = vec![volume_claim(&q.volume_id)];
        self.run(claims, move |inner| inner.unpublish(&q.target_path)).await?;
        Ok(NodeUnpublishVolumeResponse {})
    }

    async fn node_get_volume_stats(
        &self,
        q: NodeGetVolumeStatsRequest,
    ) -> Result<NodeGetVolumeStatsResponse, Status> {
        required("volume id", &q.volume_id)?;
        required("volume path", &q.volume_path)?;
        self.run(vec![], move |inner| inner.stats(&q.volume_id, &q.volume_path)).await
    }

    async fn node_expand_volume(
        &self,
        q: NodeExpandVolumeRequest,
    ) -> Result<NodeExpandVolumeResponse, Status> {
        required("volume id", &q.volume_id)?;
        required("volume path", &q.volume_path)?;
        let claims = vec![volume_claim(&q.volume_id)];
        let size = self.run(claims, move |inner| inner.node_expand(&q)).await?;
        Ok(NodeExpandVolumeResponse { capacity_bytes: size as i64 })
    }

    async fn node_get_capabilities(
        &self,
        _: NodeGetCapabilitiesRequest,
    ) -> Result<NodeGetCapabilitiesResponse, Status> {
        let all = [
            NodeRpcType::StageUnstageVolume,
            NodeRpcType::GetVolumeStats,
            NodeRpcType::ExpandVolume,
            NodeRpcType::VolumeCondition,
            NodeRpcType::SingleNodeMultiWriter,
        ];
        let rpc = |kind| Some(NodeRpc { kind: kind as i32 });
        let all = all.into_iter().map(|kind| NodeServiceCapability { rpc: rpc(kind) });
        Ok(NodeGetCapabilitiesResponse { capabilities: all.collect() })
    }

    async fn node_get_info(&self, _: NodeGetInfoRequest) -> Result<NodeGetInfoResponse, Status> {
        let node_id = self.inner.config.node.clone();
        let segments = [(TOPOLOGY_KEY.to_owned(), node_id.clone())].into();
        let accessible_topology = Some(Topology { segments });
        let max_volumes_per_node = self.inner.config.volumes_max;
        Ok(NodeGetInfoResponse { node_id, max_volumes_per_node, accessible_topology })
    }
}
