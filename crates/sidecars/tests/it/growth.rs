//! Claims grow and change their attributes.

use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use client::Patch;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use serde_json::{Value, json};

use crate::world::World;

async fn ask(world: &World, spec: Value) {
    let patch = Patch::Merge(json!({"spec": spec}));
    world.client.patch::<PersistentVolumeClaim>("default", "c", &patch).await.unwrap();
}

fn status(claim: &PersistentVolumeClaim) -> Value {
    serde_json::to_value(claim.status.as_ref().unwrap()).unwrap()
}

#[tokio::test]
async fn a_claim_that_asks_for_more_waits_for_its_node_at_last() {
    let world = World::new().await;
    world.class("local", json!({})).await;
    world.claim("c", json!({})).await;
    let volume = world.bound("c").await.spec.unwrap().volume_name.unwrap();
    ask(&world, json!({"resources": {"requests": {"storage": "100Mi"}}})).await;
    let pending = |all: &[Arc<PersistentVolumeClaim>]| {
        status(&all[0])["allocatedResourceStatuses"]["storage"] == "NodeResizePending"
    };
    let claim = status(&world.until::<PersistentVolumeClaim>(pending).await[0]);
    assert_eq!(claim["allocatedResources"]["storage"], "100Mi");
    assert_eq!(claim["capacity"]["storage"], "64Mi", "the node has not done its part");
    assert_eq!(claim["conditions"][0]["type"], "FileSystemResizePending");
    world.told("Resizing", "External resizer is resizing volume").await;
    world.told("FileSystemResizeRequired", "Require file system resize of volume on node").await;
    let object = world.client.get::<PersistentVolume>("", &volume).await.unwrap();
    assert_eq!(object.spec.unwrap().capacity.unwrap()["storage"].0, "100Mi");
    let disk = world.directory.path().join("root/volumes").join(&volume).join("disk.img");
    assert_eq!(std::fs::metadata(disk).unwrap().len(), 100 << 20);
}

#[tokio::test]
async fn a_growth_that_cannot_be_is_told_and_kept_in_the_status() {
    let world = World::new().await;
    world.class("local", json!({})).await;
    world.claim("c", json!({})).await;
    world.bound("c").await;
    ask(&world, json!({"resources": {"requests": {"storage": "1Ei"}}})).await;
    let infeasible = |all: &[Arc<PersistentVolumeClaim>]| {
        status(&all[0])["allocatedResourceStatuses"]["storage"] == "ControllerResizeInfeasible"
    };
    world.until::<PersistentVolumeClaim>(infeasible).await;
    world.told("VolumeResizeFailed", "failed: rpc error: code = OutOfRange").await;
    // Less is possible.
    ask(&world, json!({"resources": {"requests": {"storage": "128Mi"}}})).await;
    let pending = |all: &[Arc<PersistentVolumeClaim>]| {
        status(&all[0])["allocatedResourceStatuses"]["storage"] == "NodeResizePending"
    };
    world.until::<PersistentVolumeClaim>(pending).await;
}

#[tokio::test]
async fn a_class_of_attributes_is_applied() {
    let world = World::new().await;
    world.class("local", json!({})).await;
    world.claim("c", json!({})).await;
    let volume = world.bound("c").await.spec.unwrap().volume_name.unwrap();
    for (own, allocation) in [("thick", "thick"), ("wrong", "fat")] {
        let class = json!({"metadata": {"name": own}, "driverName": localdisk::NAME,
            "parameters": {"allocation": allocation}});
        world.create::<VolumeAttributesClass>("", class).await;
    }
    ask(&world, json!({"volumeAttributesClassName": "wrong"})).await;
    world.told("VolumeModifyFailed", "\"fat\" is neither thin nor thick").await;
    let infeasible = |all: &[Arc<PersistentVolumeClaim>]| {
        status(&all[0])["modifyVolumeStatus"]["status"] == "Infeasible"
    };
    world.until::<PersistentVolumeClaim>(infeasible).await;
    ask(&world, json!({"volumeAttributesClassName": "thick"})).await;
    let done = |all: &[Arc<PersistentVolumeClaim>]| {
        status(&all[0])["currentVolumeAttributesClassName"] == "thick"
    };
    let claim = status(&world.until::<PersistentVolumeClaim>(done).await[0]);
    assert_eq!(claim["modifyVolumeStatus"], Value::Null);
    let disk = world.directory.path().join("root/volumes").join(&volume).join("disk.img");
    assert!(std::fs::metadata(disk).unwrap().blocks() * 512 >= 64 << 20);
}
