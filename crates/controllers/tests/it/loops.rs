//! The smaller loops over the in-memory API.

use std::sync::Arc;

use client::{DeleteParams, Patch};
use controllers::Config;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod,
};
use k8s_openapi::api::rbac::v1::ClusterRole;
use serde_json::{Value, json};

use crate::World;
use crate::fake::Fake;

fn volume(name: &str, size: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"],
            "storageClassName": "", "persistentVolumeReclaimPolicy": "Retain"}})
}

fn claim(size: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "c", "namespace": "n"}, "spec": {"storageClassName": "",
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}})
}

fn phase_of(volumes: &[Arc<PersistentVolume>], name: &str) -> String {
    let volume = volumes.iter().find(|v| v.metadata.name.as_deref() == Some(name));
    let status = volume.and_then(|v| v.status.as_ref());
    status.and_then(|s| s.phase.clone()).unwrap_or_default()
}

#[tokio::test]
async fn claims_and_volumes_find_each_other() {
    let world = World::start(Config::default());
    world.create::<PersistentVolumeClaim>("n", claim("5Gi")).await;
    let pending = |all: &[Arc<PersistentVolumeClaim>], phase: &str| {
        let status = all.first().and_then(|c| c.status.as_ref());
        status.and_then(|s| s.phase.as_deref()) == Some(phase)
    };
    world.until::<PersistentVolumeClaim>(|all| pending(all, "Pending")).await;
    // It waits; what comes is offered to it.
    world.create::<PersistentVolume>("", volume("small", "1Gi")).await;
    world.create::<PersistentVolume>("", volume("right", "6Gi")).await;
    let claims = world.until::<PersistentVolumeClaim>(|all| pending(all, "Bound")).await;
    let spec = claims[0].spec.as_ref().unwrap();
    assert_eq!(spec.volume_name.as_deref(), Some("right"));
    world
        .until::<PersistentVolume>(|all| {
            phase_of(all, "right") == "Bound" && phase_of(all, "small") == "Available"
        })
        .await;
    let params = DeleteParams::default();
    world.client.delete::<PersistentVolumeClaim>("n", "c", &params).await.unwrap();
    world.until::<PersistentVolume>(|all| phase_of(all, "right") == "Released").await;
    world.tasks.shutdown().await;
}

#[tokio::test]
async fn pods_get_the_claims_of_their_ephemeral_volumes() {
    let world = World::start(Config::default());
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"},
        "spec": {"containers": [], "volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate":
            {"spec": {"storageClassName": ""}}}}]}});
    world.create::<Pod>("n", pod).await;
    let named = |c: &Arc<PersistentVolumeClaim>| c.metadata.name.as_deref() == Some("p-v");
    world.until::<PersistentVolumeClaim>(|all| all.iter().any(named)).await;
    world.client.delete::<Pod>("n", "p", &DeleteParams::default()).await.unwrap();
    world.until::<PersistentVolumeClaim>(|all| all.is_empty()).await;
    world.tasks.shutdown().await;
}

#[tokio::test]
async fn cluster_roles_are_aggregated() {
    let world = World::start(Config::default());
    let role = |name: &str, rest: Value| {
        let mut role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": name, "labels": {"to": name}}});
        for (key, value) in rest.as_object().unwrap() {
            role[key] = value.clone();
        }
        role
    };
    let all = json!({"aggregationRule":
        {"clusterRoleSelectors": [{"matchLabels": {"to": "part"}}]}, "rules": []});
    world.create::<ClusterRole>("", role("all", all)).await;
    let verbs = |roles: &[Arc<ClusterRole>], wanted: &[&str]| {
        let all = roles.iter().find(|r| r.metadata.name.as_deref() == Some("all"));
        let rules = all.and_then(|r| r.rules.clone()).unwrap_or_default();
        rules.iter().flat_map(|r| r.verbs.clone()).collect::<Vec<_>>() == wanted
    };
    world.create::<ClusterRole>("", role("part", json!({"rules": [{"verbs": ["get"]}]}))).await;
    world.until::<ClusterRole>(|roles| verbs(roles, &["get"])).await;
    let more = Patch::Merge(json!({"rules": [{"verbs": ["get"]}, {"verbs": ["list"]}]}));
    world.client.patch::<ClusterRole>("", "part", &more).await.unwrap();
    world.until::<ClusterRole>(|roles| verbs(roles, &["get", "list"])).await;
    world.client.delete::<ClusterRole>("", "part", &DeleteParams::default()).await.unwrap();
    world.until::<ClusterRole>(|roles| verbs(roles, &[])).await;
    world.tasks.shutdown().await;
}

#[tokio::test]
async fn nodes_are_told_how_long_to_keep_secrets() {
    let world = World::start(Config::default());
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}});
    world.create::<Node>("", node).await;
    let told = |n: &Arc<Node>| {
        let annotations = n.metadata.annotations.as_ref();
        annotations.is_some_and(|a| a.get("node.alpha.kubernetes.io/ttl").is_some_and(|t| t == "0"))
    };
    world.until::<Node>(|nodes| nodes.iter().all(told)).await;
    world.tasks.shutdown().await;
}

/// A request of `openssl req`, for `CN=jane`.
const REQUEST: &str = include_str!("jane.csr");

#[tokio::test]
async fn approved_requests_are_signed_and_bad_ones_fail() {
    let authority = pki::Authority::create("kubernetes").unwrap();
    let config = Config { authority: Some(Arc::new(authority)), ..Config::default() };
    let world = World::start(config);
    let request = |name: &str, usage: &str| {
        let encoded = k8s_openapi::ByteString(REQUEST.as_bytes().to_vec());
        json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"name": name}, "spec": {"request": encoded, "usages": [usage],
                "signerName": "kubernetes.io/kube-apiserver-client"},
            "status": {"conditions": [{"type": "Approved", "status": "True",
                "lastUpdateTime": "2999-01-01T00:00:00Z"}]}})
    };
    world.create::<CertificateSigningRequest>("", request("good", "client auth")).await;
    world.create::<CertificateSigningRequest>("", request("bad", "server auth")).await;
    let of = |all: &[Arc<CertificateSigningRequest>], name: &str| {
        let request = all.iter().find(|r| r.metadata.name.as_deref() == Some(name));
        request.and_then(|r| r.status.clone()).unwrap_or_default()
    };
    let all = world
        .until::<CertificateSigningRequest>(|all| {
            of(all, "good").certificate.is_some()
                && of(all, "bad").conditions.is_some_and(|c| c.len() == 2)
        })
        .await;
    let pem = of(&all, "good").certificate.unwrap().0;
    assert!(pki::expires(&pem).is_some());
    let failed = of(&all, "bad").conditions.unwrap()[1].clone();
    assert_eq!(
        (failed.type_.as_str(), failed.message.as_deref()),
        ("Failed", Some("invalid usage for client certificate: server auth"))
    );
    world.tasks.shutdown().await;
}

/// An owner, and a dependent of it; then the owner goes.
async fn an_owner_goes(world: &World) {
    let map = |name: &str, owners: Value| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "n",
            "ownerReferences": owners}})
    };
    let owner: ConfigMap = world.create("n", map("owner", json!([]))).await;
    let refers = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner",
        "uid": owner.metadata.uid}]);
    world.create::<ConfigMap>("n", map("dependent", refers)).await;
    world.client.delete::<ConfigMap>("n", "owner", &DeleteParams::default()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_cannot_be_listed_holds_the_collector_up_for_a_while_only() {
    let fake = Fake { silent: Some("cronjobs"), ..Fake::default() };
    let config = Config { controllers: vec!["garbagecollector".into()], ..Config::default() };
    let world = World::on(fake, config);
    an_owner_goes(&world).await;
    world.until::<ConfigMap>(|all| all.is_empty()).await;
    world.tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_group_that_does_not_answer_hides_no_other() {
    let fake = Fake { lost_group: Some("batch"), ..Fake::default() };
    let controllers = ["garbagecollector", "namespace"].map(str::to_owned).to_vec();
    let world = World::on(fake, Config { controllers, ..Config::default() });
    an_owner_goes(&world).await;
    world.until::<ConfigMap>(|all| all.is_empty()).await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"},
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
    world.create::<Namespace>("", namespace).await;
    world.client.delete::<Namespace>("", "n", &DeleteParams::default()).await.unwrap();
    // Jobs could be left: the namespace stays, and says why.
    world
        .until::<Namespace>(|all| {
            let conditions = all.iter().flat_map(|n| n.status.iter());
            let mut conditions = conditions.flat_map(|s| s.conditions.iter().flatten());
            conditions.any(|c| c.reason.as_deref() == Some("DiscoveryFailed"))
        })
        .await;
    world.tasks.shutdown().await;
}
