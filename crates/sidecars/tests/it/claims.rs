//! Claims get volumes, and what they leave is deleted.

use std::sync::Arc;

use client::{DeleteParams, Patch};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::CSIStorageCapacity;
use serde_json::json;

use crate::world::World;

const SELECTED: &str = "volume.kubernetes.io/selected-node";

#[tokio::test]
async fn a_claim_gets_a_volume_on_the_node_that_was_chosen_and_gives_it_back() {
    let world = World::new().await;
    world.class("local", json!({"volumeBindingMode": "WaitForFirstConsumer"})).await;
    let claim = world.claim("c", json!({})).await;
    world.told("WaitForFirstConsumer", "waiting for first consumer").await;
    assert_eq!(world.volumes(), Vec::<String>::new(), "no node was chosen");
    let select = Patch::Merge(json!({"metadata": {"annotations": {SELECTED: "n1"}}}));
    world.client.patch::<PersistentVolumeClaim>("default", "c", &select).await.unwrap();
    let bound = world.bound("c").await;
    let own = format!("pvc-{}", claim.metadata.uid.unwrap());
    assert_eq!(bound.spec.unwrap().volume_name.as_ref(), Some(&own));
    assert_eq!(world.volumes(), std::slice::from_ref(&own));
    let volume = world.client.get::<PersistentVolume>("", &own).await.unwrap();
    let spec = serde_json::to_value(volume.spec.unwrap()).unwrap();
    assert_eq!(spec["capacity"]["storage"], "64Mi");
    let term = &spec["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0];
    assert_eq!(term["key"], "topology.local.csi.trireme.dev/node");
    assert_eq!(term["values"], json!(["n1"]));
    world.told("Provisioning", "for claim \"default/c\"").await;
    world.told("ProvisioningSucceeded", &format!("Successfully provisioned volume {own}")).await;
    let params = DeleteParams::default();
    world.client.delete::<PersistentVolumeClaim>("default", "c", &params).await.unwrap();
    world.until::<PersistentVolume>(|all| all.is_empty()).await;
    assert_eq!(world.volumes(), Vec::<String>::new());
}

#[tokio::test]
async fn an_immediate_claim_is_taken_and_a_retained_volume_is_kept() {
    let world = World::new().await;
    world.class("local", json!({"reclaimPolicy": "Retain"})).await;
    world.claim("c", json!({})).await;
    let bound = world.bound("c").await;
    assert_eq!(bound.metadata.annotations.unwrap()[SELECTED], "n1");
    let volume = bound.spec.unwrap().volume_name.unwrap();
    let released = |all: &[Arc<PersistentVolume>]| {
        let finalizers = all[0].metadata.finalizers.clone().unwrap_or_default();
        !finalizers.iter().any(|f| f.starts_with("external-provisioner"))
    };
    world.until::<PersistentVolume>(released).await;
    let params = DeleteParams::default();
    world.client.delete::<PersistentVolumeClaim>("default", "c", &params).await.unwrap();
    let phase = |all: &[Arc<PersistentVolume>]| {
        all[0].status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Released")
    };
    world.until::<PersistentVolume>(phase).await;
    world.client.delete::<PersistentVolume>("", &volume, &params).await.unwrap();
    world.until::<PersistentVolume>(|all| all.is_empty()).await;
    assert_eq!(world.volumes(), [volume]);
}

#[tokio::test]
async fn what_the_driver_refuses_is_told() {
    let world = World::new().await;
    world.class("local", json!({"parameters": {"replicas": "3"}})).await;
    world.claim("c", json!({})).await;
    let message = "failed to provision volume with StorageClass \"local\": rpc error: code = \
                   InvalidArgument desc = parameter \"replicas\" is unknown";
    world.told("ProvisioningFailed", message).await;
    world.class("shared", json!({})).await;
    let many = json!({"spec": {"storageClassName": "shared", "accessModes": ["ReadWriteMany"]}});
    world.claim("many", many).await;
    world.told("ProvisioningFailed", "access from several nodes is not supported").await;
    world
        .class(
            "secret",
            json!({"parameters":
        {"csi.storage.k8s.io/provisioner-secret-name": "s"}}),
        )
        .await;
    world.claim("secret", json!({"spec": {"storageClassName": "secret"}})).await;
    world.told("ProvisioningFailed", "reserved namespace csi.storage.k8s.io/").await;
    assert_eq!(world.volumes(), Vec::<String>::new());
}

#[tokio::test]
async fn a_node_without_room_lets_the_scheduler_choose_again() {
    let world = World::new().await;
    world.class("local", json!({"volumeBindingMode": "WaitForFirstConsumer"})).await;
    let large = json!({"spec": {"resources": {"requests": {"storage": "10Ti"}}},
        "annotations": {SELECTED: "n1"}});
    world.claim("large", large).await;
    world.told("ProvisioningFailed", "not enough room below").await;
    let unselected = |all: &[Arc<PersistentVolumeClaim>]| {
        !all[0].metadata.annotations.as_ref().is_some_and(|a| a.contains_key(SELECTED))
    };
    world.until::<PersistentVolumeClaim>(unselected).await;
}

#[tokio::test]
async fn a_claim_of_another_claim_is_a_clone() {
    let world = World::new().await;
    world.class("local", json!({})).await;
    let source = json!({"dataSource": {"kind": "PersistentVolumeClaim", "name": "first"}});
    world.claim("early", json!({"spec": source})).await;
    world.told("ProvisioningFailed", "error getting PVC first").await;
    world.claim("first", json!({})).await;
    let first = world.bound("first").await;
    let clone = world.bound("early").await;
    let request =
        csi::v1::ControllerGetVolumeRequest { volume_id: clone.spec.unwrap().volume_name.unwrap() };
    let clone = world.csi.controller_get_volume(&request).await.unwrap().volume.unwrap();
    let kind = clone.content_source.unwrap().kind.unwrap();
    let volume_id = first.spec.unwrap().volume_name.unwrap();
    assert_eq!(kind, csi::v1::ContentSource::Volume(csi::v1::VolumeSource { volume_id }));
}

#[tokio::test]
async fn free_capacity_is_published_for_each_class() {
    let world = World::new().await;
    world.class("local", json!({})).await;
    let all = world.until::<CSIStorageCapacity>(|all| all.len() == 1).await;
    assert_eq!(all[0].storage_class_name, "local");
    assert_eq!(all[0].metadata.name.as_deref(), Some("csisc-local-n1"));
    let at = all[0].node_topology.as_ref().unwrap().match_labels.as_ref().unwrap();
    assert_eq!(at["topology.local.csi.trireme.dev/node"], "n1");
    let params = DeleteParams::default();
    world
        .client
        .delete::<k8s_openapi::api::storage::v1::StorageClass>("", "local", &params)
        .await
        .unwrap();
    world.until::<CSIStorageCapacity>(|all| all.is_empty()).await;
}
