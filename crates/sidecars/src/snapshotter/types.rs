//! The kinds of `snapshot.storage.k8s.io/v1`, as far as they are read here. Objects are changed by patches, so
//! that fields which are not known here stay.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{
    ClusterResourceScope, ListableResource, Metadata, NamespaceResourceScope, Resource,
};
use serde::{Deserialize, Serialize};

pub(crate) const GROUP: &str = "snapshot.storage.k8s.io";

macro_rules! kind {
    ($Kind:ident, $name:literal, $list:literal, $plural:literal, $Scope:ident) => {
        impl Resource for $Kind {
            const API_VERSION: &'static str = "snapshot.storage.k8s.io/v1";
            const GROUP: &'static str = GROUP;
            const KIND: &'static str = $name;
            const VERSION: &'static str = "v1";
            const URL_PATH_SEGMENT: &'static str = $plural;
            type Scope = $Scope;
        }

        client::codec!($Kind);

        impl ListableResource for $Kind {
            const LIST_KIND: &'static str = $list;
        }

        impl Metadata for $Kind {
            type Ty = ObjectMeta;

            fn metadata(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

/// What a user asks for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct VolumeSnapshot {
    pub metadata: ObjectMeta,
    pub spec: SnapshotSpec,
    #[serde(default)]
    pub status: SnapshotStatus,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotSpec {
    pub source: SnapshotSource,
    pub volume_snapshot_class_name: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotSource {
    pub persistent_volume_claim_name: Option<String>,
    pub volume_snapshot_content_name: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotStatus {
    pub bound_volume_snapshot_content_name: Option<String>,
    pub ready_to_use: Option<bool>,
    /// A quantity: text or a number.
    pub restore_size: Option<serde_json::Value>,
    pub error: Option<SnapshotError>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SnapshotError {
    pub message: Option<String>,
}

/// What is there.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct VolumeSnapshotContent {
    pub metadata: ObjectMeta,
    pub spec: ContentSpec,
    #[serde(default)]
    pub status: ContentStatus,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContentSpec {
    pub driver: String,
    pub deletion_policy: String,
    pub source: ContentSource,
    pub volume_snapshot_ref: SnapshotRef,
    pub volume_snapshot_class_name: Option<String>,
    /// The mode of the volume that was copied.
    pub source_volume_mode: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContentSource {
    pub volume_handle: Option<String>,
    pub snapshot_handle: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SnapshotRef {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub namespace: String,
    #[serde(default)]
    pub uid: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContentStatus {
    pub snapshot_handle: Option<String>,
    /// Nanoseconds since 1970.
    pub creation_time: Option<i64>,
    pub restore_size: Option<i64>,
    pub ready_to_use: Option<bool>,
}

/// How snapshots are made.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSnapshotClass {
    pub metadata: ObjectMeta,
    pub driver: String,
    pub deletion_policy: String,
    #[serde(default)]
    pub parameters: std::collections::BTreeMap<String, String>,
}

kind!(
    VolumeSnapshot,
    "VolumeSnapshot",
    "VolumeSnapshotList",
    "volumesnapshots",
    NamespaceResourceScope
);
kind!(
    VolumeSnapshotContent,
    "VolumeSnapshotContent",
    "VolumeSnapshotContentList",
    "volumesnapshotcontents",
    ClusterResourceScope
);
kind!(
    VolumeSnapshotClass,
    "VolumeSnapshotClass",
    "VolumeSnapshotClassList",
    "volumesnapshotclasses",
    ClusterResourceScope
);
