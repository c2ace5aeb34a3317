//! Claims, devices and bootstrap tokens: controllers and scheduler together over the in-memory API.

use std::sync::Arc;
use std::time::Duration;

use client::Patch;
use controllers::Config;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret, ServiceAccount};
use k8s_openapi::api::resource::v1::{
    DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice,
};
use serde_json::{Value, json};

use crate::World;

async fn node(world: &World) {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"},
            "conditions": [{"type": "Ready", "status": "True"}]}});
    world.create::<Node>("", node).await;
}

/// A class and a slice with one device on node `a`.
async fn device(world: &World) {
    let class = json!({"metadata": {"name": "any"}, "spec": {}});
    world.create::<DeviceClass>("", class).await;
    let slice = json!({"metadata": {"name": "s"}, "spec": {"driver": "d", "nodeName": "a",
        "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1},
        "devices": [{"name": "x"}]}});
    world.create::<ResourceSlice>("", slice).await;
    let template = json!({"metadata": {"name": "t", "namespace": "n"}, "spec": {"spec": {
        "devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "any",
            "allocationMode": "ExactCount", "count": 1}}]}}}});
    world.create::<ResourceClaimTemplate>("n", template).await;
}

async fn pod(world: &World, name: &str) {
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "n"},
        "spec": {"containers": [{"name": "c", "image": "i"}],
            "resourceClaims": [{"name": "c", "resourceClaimTemplateName": "t"}]}});
    world.create::<Pod>("n", pod).await;
}

fn node_of<'a>(pods: &'a [Arc<Pod>], name: &str) -> Option<&'a str> {
    let pod = pods.iter().find(|p| p.metadata.name.as_deref() == Some(name))?;
    pod.spec.as_ref()?.node_name.as_deref()
}

#[tokio::test]
async fn a_claim_is_made_gets_a_device_and_gives_it_back() {
    let world = World::start(Config::default());
    scheduler::run(&world.informers, &world.tasks, scheduler::Config::default());
    node(&world).await;
    device(&world).await;
    pod(&world, "p").await;
    world.until::<Pod>(|pods| node_of(pods, "p") == Some("a")).await;
    let claims = world
        .until::<ResourceClaim>(|claims| {
            let status = claims.first().and_then(|c| c.status.as_ref());
            status.is_some_and(|s| s.reserved_for.as_ref().is_some_and(|all| all.len() == 1))
        })
        .await;
    let status = claims[0].status.as_ref().unwrap();
    let allocation = status.allocation.as_ref().unwrap();
    let results = allocation.devices.as_ref().unwrap().results.as_ref().unwrap();
    assert_eq!((results[0].request.as_str(), results[0].device.as_str()), ("r", "x"));
    assert!(allocation.allocation_timestamp.is_some());
    let finalizers = claims[0].metadata.finalizers.clone().unwrap();
    assert_eq!(finalizers, ["resource.kubernetes.io/delete-protection"]);
    // The device is taken; the next pod gets it when the first has ended.
    pod(&world, "q").await;
    world
        .until::<Pod>(|pods| {
            pods.iter().any(|p| {
                let conditions = p.status.as_ref().and_then(|s| s.conditions.as_deref());
                let mut conditions = conditions.unwrap_or_default().iter();
                conditions.any(|c| {
                    c.reason.as_deref() == Some("Unschedulable")
                        && c.message.as_deref().is_some_and(|m| {
                            m.starts_with(
                                "0/1 nodes are available: 1 cannot allocate all claims. still not \
                                 schedulable, ",
                            )
                        })
                })
            })
        })
        .await;
    let over = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
    world.client.patch_status::<Pod>("n", "p", &over).await.unwrap();
    world.until::<Pod>(|pods| node_of(pods, "q") == Some("a")).await;
    world.until::<ResourceClaim>(|claims| claims.len() == 1).await;
    world.tasks.shutdown().await;
}

#[tokio::test]
async fn a_device_that_is_tainted_ends_its_pods() {
    let world = World::start(Config::default());
    scheduler::run(&world.informers, &world.tasks, scheduler::Config::default());
    node(&world).await;
    device(&world).await;
    pod(&world, "p").await;
    world.until::<Pod>(|pods| node_of(pods, "p") == Some("a")).await;
    let tainted = json!([{"name": "x", "taints": [{"key": "broken", "effect": "NoExecute",
        "timeAdded": "2026-01-01T00:00:00Z"}]}]);
    let patch = Patch::Merge(json!({"spec": {"devices": tainted}}));
    world.client.patch::<ResourceSlice>("", "s", &patch).await.unwrap();
    world.until::<Pod>(|pods| pods.is_empty()).await;
    world.tasks.shutdown().await;
}

#[tokio::test]
async fn cluster_info_is_signed_while_a_token_may() {
    let controllers = vec!["bootstrapsigner".to_owned()];
    let world = World::start(Config { controllers, ..Config::default() });
    let info = json!({"metadata": {"name": "cluster-info", "namespace": "kube-public"},
        "data": {"kubeconfig": "config"}});
    world.create::<ConfigMap>("kube-public", info).await;
    let text = |text: &str| json!(k8s_openapi::ByteString(text.as_bytes().to_vec()));
    let token = json!({"metadata": {"name": "bootstrap-token-abc123", "namespace": "kube-system"},
        "type": "bootstrap.kubernetes.io/token", "data": {"token-id": text("abc123"),
            "token-secret": text("0123456789abcdef"), "usage-bootstrap-signing": text("true")}});
    world.create::<Secret>("kube-system", token).await;
    let signature = |maps: &[Arc<ConfigMap>]| {
        let data = maps.first().and_then(|map| map.data.clone()).unwrap_or_default();
        data.get("jws-kubeconfig-abc123").cloned()
    };
    let maps = world.until::<ConfigMap>(|maps| signature(maps).is_some()).await;
    let expected = pki::detached_signature("config", "abc123", "0123456789abcdef");
    assert_eq!(signature(&maps), Some(expected));
    let params = client::DeleteParams::default();
    world.client.delete::<Secret>("kube-system", "bootstrap-token-abc123", &params).await.unwrap();
    world.until::<ConfigMap>(|maps| signature(maps).is_none()).await;
    world.tasks.shutdown().await;
}

fn legacy(name: &str, labels: Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "n", "labels": labels,
        "annotations": {"kubernetes.io/service-account.name": "a"}},
        "type": "kubernetes.io/service-account-token"})
}

#[tokio::test]
async fn legacy_tokens_that_nobody_uses_are_marked_and_go() {
    let fake = crate::fake::Fake::default();
    // The controller looks once a day: everything is there when it starts.
    let world = World::on(fake, Config { controllers: Vec::new(), ..Config::default() });
    let tracking = json!({"metadata": {"namespace": "kube-system",
        "name": "kube-apiserver-legacy-service-account-token-tracking"},
        "data": {"since": "2020-01-01"}});
    world.create::<ConfigMap>("kube-system", tracking).await;
    let account = json!({"metadata": {"name": "a", "namespace": "n"},
        "secrets": [{"name": "unused"}, {"name": "invalid"}]});
    world.create::<ServiceAccount>("n", account).await;
    world.create::<Secret>("n", legacy("unused", json!({}))).await;
    let old = json!({"kubernetes.io/legacy-token-invalid-since": "2020-01-01"});
    world.create::<Secret>("n", legacy("invalid", old)).await;
    world.create::<Secret>("n", legacy("users-own", json!({}))).await;
    let config = Config {
        controllers: vec!["legacy-service-account-token-cleaner".into()],
        legacy_token_clean_up_period: Duration::from_secs(24 * 3600),
        ..Config::default()
    };
    controllers::run(&world.informers, &world.tasks, config).unwrap();
    let marked = |secrets: &[Arc<Secret>], name: &str| {
        let own = secrets.iter().find(|s| s.metadata.name.as_deref() == Some(name));
        own.and_then(|s| s.metadata.labels.clone())
            .is_some_and(|labels| labels.contains_key("kubernetes.io/legacy-token-invalid-since"))
    };
    let left =
        world.until::<Secret>(|secrets| secrets.len() == 2 && marked(secrets, "unused")).await;
    assert!(!marked(&left, "users-own"));
    world.tasks.shutdown().await;
}

#[tokio::test]
async fn an_extended_resource_comes_from_a_class() {
    let world = World::start(Config::default());
    scheduler::run(&world.informers, &world.tasks, scheduler::Config::default());
    node(&world).await;
    device(&world).await;
    let class = json!({"metadata": {"name": "gpus"}, "spec": {"extendedResourceName":
        "example.com/gpu"}});
    world.create::<DeviceClass>("", class).await;
    let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [
        {"name": "c", "image": "i", "resources": {"requests": {"example.com/gpu": "1"},
            "limits": {"example.com/gpu": "1"}}}]}});
    world.create::<Pod>("n", pod).await;
    let pods = world.until::<Pod>(|pods| node_of(pods, "p") == Some("a")).await;
    let status = pods[0].status.as_ref().unwrap().extended_resource_claim_status.clone().unwrap();
    assert_eq!(status.request_mappings[0].request_name, "container-0-request-0");
    let claims = world.until::<ResourceClaim>(|claims| claims.len() == 1).await;
    assert_eq!(claims[0].metadata.name.as_ref(), Some(&status.resource_claim_name));
    let reserved = claims[0].status.as_ref().and_then(|s| s.reserved_for.clone()).unwrap();
    assert_eq!(reserved[0].name, "p");
    // It goes with the pod.
    let over = Patch::Merge(json!({"status": {"phase": "Failed"}}));
    world.client.patch_status::<Pod>("n", "p", &over).await.unwrap();
    world.until::<ResourceClaim>(|claims| claims.is_empty()).await;
    world.tasks.shutdown().await;
}
