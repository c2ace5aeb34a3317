//! Volumes of CSI drivers on their way to nodes and back.

use std::sync::Arc;

use client::{DeleteParams, Patch};
use controllers::Config;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use serde_json::{Value, json};

use crate::World;

const UNIQUE: &str = "kubernetes.io/csi/d^h";

async fn pod(world: &World, name: &str, node: &str) {
    let pod = json!({"metadata": {"name": name, "namespace": "n"}, "spec": {"nodeName": node,
        "containers": [], "volumes": [{"name": "v",
            "persistentVolumeClaim": {"claimName": "c"}}]}, "status": {"phase": "Running"}});
    world.create::<Pod>("n", pod).await;
}

async fn storage(world: &World) {
    let volume = json!({"metadata": {"name": "pv"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "csi": {"driver": "d", "volumeHandle": "h"},
        "claimRef": {"namespace": "n", "name": "c"}}});
    world.create::<PersistentVolume>("", volume).await;
    let claim = json!({"metadata": {"name": "c", "namespace": "n"}, "spec": {"volumeName": "pv"}});
    world.create::<PersistentVolumeClaim>("n", claim).await;
    for name in ["a", "b"] {
        let node = json!({"metadata": {"name": name, "annotations":
            {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        world.create::<Node>("", node).await;
    }
}

fn on(attachments: &[Arc<VolumeAttachment>]) -> Vec<&str> {
    attachments.iter().map(|a| a.spec.node_name.as_str()).collect()
}

fn reported(nodes: &[Arc<Node>], name: &str) -> Vec<String> {
    let node = nodes.iter().find(|n| n.metadata.name.as_deref() == Some(name));
    let attached = node.and_then(|n| n.status.as_ref()?.volumes_attached.clone());
    attached.unwrap_or_default().into_iter().map(|entry| entry.name).collect()
}

async fn patch_node(world: &World, name: &str, status: Value) {
    let patch = Patch::Merge(json!({"status": status}));
    world.client.patch_status::<Node>("", name, &patch).await.unwrap();
}

#[tokio::test]
async fn a_volume_is_attached_to_one_node_after_the_other() {
    let controllers = vec!["attachdetach".to_owned()];
    let world = World::start(Config { controllers, ..Config::default() });
    storage(&world).await;
    pod(&world, "p", "a").await;
    let made = world.until::<VolumeAttachment>(|all| on(all) == ["a"]).await;
    assert_eq!(made[0].spec.source.persistent_volume_name.as_deref(), Some("pv"));
    // The driver has attached it; the node is told, and mounts it.
    let done = Patch::Merge(json!({"status": {"attached": true}}));
    let own = made[0].metadata.name.clone().unwrap();
    world.client.patch_status::<VolumeAttachment>("", &own, &done).await.unwrap();
    world.until::<Node>(|nodes| reported(nodes, "a") == [UNIQUE]).await;
    patch_node(&world, "a", json!({"volumesInUse": [UNIQUE]})).await;
    let uses = |node: &Arc<Node>| {
        let status = node.status.as_ref();
        status.is_some_and(|s| s.volumes_in_use.iter().flatten().any(|volume| volume == UNIQUE))
    };
    world.until::<Node>(|nodes| nodes.iter().any(uses)).await;
    // Another node has to wait until the first has unmounted it.
    pod(&world, "q", "b").await;
    world.client.delete::<Pod>("n", "p", &DeleteParams::default()).await.unwrap();
    world.until::<Pod>(|pods| pods.len() == 1).await;
    let all = world.until::<VolumeAttachment>(|all| !all.is_empty()).await;
    assert_eq!(on(&all), ["a"]);
    patch_node(&world, "a", json!({"volumesInUse": []})).await;
    world.until::<VolumeAttachment>(|all| on(all) == ["b"]).await;
    world.until::<Node>(|nodes| reported(nodes, "a").is_empty()).await;
    world.tasks.shutdown().await;
}
