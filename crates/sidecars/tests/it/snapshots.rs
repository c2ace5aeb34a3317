//! Snapshots by their objects.

use std::sync::Arc;

use client::Resource;
use serde_json::{Value, json};
use sidecars::{VolumeSnapshot, VolumeSnapshotContent};

use crate::world::World;

const GROUP: &str = "/apis/snapshot.storage.k8s.io/v1";
const SNAPSHOTS: &str = "/apis/snapshot.storage.k8s.io/v1/namespaces/default/volumesnapshots";

impl World {
    async fn snapshot_class(&self, policy: &str) {
        let class = json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass",
            "metadata": {"name": "local"}, "driver": localdisk::NAME, "deletionPolicy": policy});
        self.ask("POST", &format!("{GROUP}/volumesnapshotclasses"), class).await.unwrap();
    }

    async fn snapshot(&self, own: &str, source: Value) -> Result<Value, client::Error> {
        let snapshot = json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
            "metadata": {"name": own, "namespace": "default"},
            "spec": {"source": source, "volumeSnapshotClassName": "local"}});
        self.ask("POST", SNAPSHOTS, snapshot).await
    }

    /// Waits until the object (null when there is none) is as `good` wants it.
    async fn seen<K: Resource>(&self, own: &str, good: impl Fn(&Value) -> bool) -> Value {
        let find = |all: &[Arc<K>]| {
            let found = all.iter().find(|object| object.metadata().name.as_deref() == Some(own));
            found.map_or(Value::Null, |object| serde_json::to_value(&**object).unwrap())
        };
        find(&self.until::<K>(|all| good(&find(all))).await)
    }

    fn driver_snapshots(&self) -> usize {
        std::fs::read_dir(self.directory.path().join("root/snapshots")).unwrap().count()
    }
}

#[tokio::test]
async fn a_snapshot_is_made_restored_and_deleted_with_its_content() {
    let world = World::new().await;
    world.class("local", json!({})).await;
    world.claim("c", json!({})).await;
    world.bound("c").await;
    let source = json!({"persistentVolumeClaimName": "c"});
    world.snapshot("s", source.clone()).await.unwrap();
    let path = format!("{SNAPSHOTS}/s");
    // There is no class yet.
    let failed = |s: &Value| {
        s["status"]["error"]["message"].as_str().is_some_and(|m| m.contains("not found"))
    };
    world.seen::<VolumeSnapshot>("s", failed).await;
    world.snapshot_class("Delete").await;
    let ready = world.seen::<VolumeSnapshot>("s", |s| s["status"]["readyToUse"] == true).await;
    assert_eq!(ready["status"]["restoreSize"], "64Mi");
    assert_eq!(ready["status"]["error"], Value::Null);
    let content = ready["status"]["boundVolumeSnapshotContentName"].as_str().unwrap().to_owned();
    world.told("SnapshotReady", "Snapshot default/s is ready to use.").await;
    assert_eq!(world.driver_snapshots(), 1);
    let restored = json!({"dataSource": {"apiGroup": "snapshot.storage.k8s.io",
        "kind": "VolumeSnapshot", "name": "s"}});
    world.claim("r", json!({"spec": restored})).await;
    let restored = world.bound("r").await.spec.unwrap().volume_name.unwrap();
    let request = csi::v1::ControllerGetVolumeRequest { volume_id: restored };
    let volume = world.csi.controller_get_volume(&request).await.unwrap().volume.unwrap();
    assert!(matches!(
        volume.content_source.unwrap().kind,
        Some(csi::v1::ContentSource::Snapshot(_))
    ));
    // A content that a snapshot is bound to stays until that goes.
    let at = format!("{GROUP}/volumesnapshotcontents/{content}");
    world.ask("DELETE", &at, Value::Null).await.unwrap();
    world
        .seen::<VolumeSnapshotContent>(&content, |c| c["metadata"]["deletionTimestamp"].is_string())
        .await;
    assert_eq!(world.driver_snapshots(), 1);
    world.ask("DELETE", &path, Value::Null).await.unwrap();
    world.seen::<VolumeSnapshotContent>(&content, Value::is_null).await;
    world.seen::<VolumeSnapshot>("s", Value::is_null).await;
    assert_eq!(world.driver_snapshots(), 0);
}

#[tokio::test]
async fn a_retained_snapshot_is_there_for_another_object() {
    let world = World::new().await;
    world.class("local", json!({})).await;
    world.snapshot_class("Retain").await;
    world.claim("c", json!({})).await;
    world.bound("c").await;
    world.snapshot("s", json!({"persistentVolumeClaimName": "c"})).await.unwrap();
    let path = format!("{SNAPSHOTS}/s");
    let ready = world.seen::<VolumeSnapshot>("s", |s| s["status"]["readyToUse"] == true).await;
    let content = ready["status"]["boundVolumeSnapshotContentName"].as_str().unwrap();
    let contents = format!("{GROUP}/volumesnapshotcontents");
    let content = world.ask("GET", &format!("{contents}/{content}"), Value::Null).await.unwrap();
    let handle = content["status"]["snapshotHandle"].clone();
    assert_eq!(content["spec"]["volumeSnapshotClassName"], "local");
    assert_eq!(content["spec"]["sourceVolumeMode"], "Filesystem");
    world.ask("DELETE", &path, Value::Null).await.unwrap();
    world.seen::<VolumeSnapshot>("s", Value::is_null).await;
    assert_eq!(world.driver_snapshots(), 1, "kept");
    let given = json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
        "metadata": {"name": "given"},
        "spec": {"driver": localdisk::NAME, "deletionPolicy": "Delete",
            "source": {"snapshotHandle": handle},
            "volumeSnapshotRef": {"name": "again", "namespace": "default"}}});
    world.ask("POST", &contents, given).await.unwrap();
    world.snapshot("again", json!({"volumeSnapshotContentName": "given"})).await.unwrap();
    let path = format!("{SNAPSHOTS}/again");
    world.seen::<VolumeSnapshot>("again", |s| s["status"]["readyToUse"] == true).await;
    world.snapshot("thief", json!({"volumeSnapshotContentName": "given"})).await.unwrap();
    let refused = |s: &Value| {
        let message = s["status"]["error"]["message"].as_str();
        message == Some("VolumeSnapshotContent given is bound to a different snapshot")
    };
    world.seen::<VolumeSnapshot>("thief", refused).await;
    world.ask("DELETE", &path, Value::Null).await.unwrap();
    world.seen::<VolumeSnapshot>("again", Value::is_null).await;
    assert_eq!(world.driver_snapshots(), 0);
}

#[tokio::test]
async fn the_definitions_refuse_what_upstreams_do() {
    let world = World::new().await;
    let both = json!({"persistentVolumeClaimName": "c", "volumeSnapshotContentName": "d"});
    let refused = world.snapshot("s", both).await.unwrap_err().to_string();
    assert!(refused.contains("exactly one of"), "{refused}");
    let refused = world.snapshot("s", json!({})).await.unwrap_err().to_string();
    assert!(refused.contains("exactly one of"), "{refused}");
    world.snapshot("s", json!({"persistentVolumeClaimName": "c"})).await.unwrap();
    let change = json!({"spec": {"source": {"persistentVolumeClaimName": "d"}}});
    let refused =
        world.ask("PATCH", &format!("{SNAPSHOTS}/s"), change).await.unwrap_err().to_string();
    assert!(refused.contains("persistentVolumeClaimName is immutable"), "{refused}");
}
