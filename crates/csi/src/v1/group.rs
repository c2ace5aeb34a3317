//! Messages of the GroupController service.

use std::collections::BTreeMap;

use prost::Message;

use super::{Secret, Snapshot, Timestamp};

#[derive(Clone, PartialEq, Message)]
pub struct GroupControllerGetCapabilitiesRequest {}

#[derive(Clone, PartialEq, Message)]
pub struct GroupControllerGetCapabilitiesResponse {
    #[prost(message, repeated, tag = "1")]
    pub capabilities: Vec<GroupControllerServiceCapability>,
}

#[derive(Clone, PartialEq, Message)]
pub struct GroupControllerServiceCapability {
    #[prost(message, optional, tag = "1")]
    pub rpc: Option<GroupControllerRpc>,
}

#[derive(Clone, PartialEq, Message)]
pub struct GroupControllerRpc {
    #[prost(enumeration = "GroupControllerRpcType", tag = "1")]
    pub kind: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum GroupControllerRpcType {
    Unknown = 0,
    CreateDeleteGetVolumeGroupSnapshot = 1,
}

#[derive(Clone, PartialEq, Message)]
pub struct CreateVolumeGroupSnapshotRequest {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, repeated, tag = "2")]
    pub source_volume_ids: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    pub secrets: Vec<Secret>,
    #[prost(btree_map = "string, string", tag = "4")]
    pub parameters: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct CreateVolumeGroupSnapshotResponse {
    #[prost(message, optional, tag = "1")]
    pub group_snapshot: Option<VolumeGroupSnapshot>,
}

#[derive(Clone, PartialEq, Message)]
pub struct VolumeGroupSnapshot {
    #[prost(string, tag = "1")]
    pub group_snapshot_id: String,
    #[prost(message, repeated, tag = "2")]
    pub snapshots: Vec<Snapshot>,
    #[prost(message, optional, tag = "3")]
    pub creation_time: Option<Timestamp>,
    #[prost(bool, tag = "4")]
    pub ready_to_use: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct DeleteVolumeGroupSnapshotRequest {
    #[prost(string, tag = "1")]
    pub group_snapshot_id: String,
    #[prost(string, repeated, tag = "2")]
    pub snapshot_ids: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    pub secrets: Vec<Secret>,
}

#[derive(Clone, PartialEq, Message)]
pub struct DeleteVolumeGroupSnapshotResponse {}

#[derive(Clone, PartialEq, Message)]
pub struct GetVolumeGroupSnapshotRequest {
    #[prost(string, tag = "1")]
    pub group_snapshot_id: String,
    #[prost(string, repeated, tag = "2")]
    pub snapshot_ids: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    pub secrets: Vec<Secret>,
}

#[derive(Clone, PartialEq, Message)]
pub struct GetVolumeGroupSnapshotResponse {
    #[prost(message, optional, tag = "1")]
    pub group_snapshot: Option<VolumeGroupSnapshot>,
}
