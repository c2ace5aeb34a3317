//! The controllers together, over an in-memory API: what one writes, the others see.

// A panic is how a test fails; the lint's own exception does not reach integration tests' helpers.
#![allow(clippy::unwrap_used)]

mod attachments;
mod devices;
mod fake;
mod loops;
mod rollouts;
mod workloads;

use std::sync::Arc;
use std::time::Duration;

use client::{Client, DeleteParams, Informer, Informers, Patch, Resource, Tasks};
use controllers::Config;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod,
    ResourceQuota, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::fake::Fake;

/// Longer than anything here takes; only a failure waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

struct World {
    client: Client,
    informers: Informers,
    tasks: Tasks,
}

impl World {
    fn start(config: Config) -> World {
        World::on(Fake::default(), config)
    }

    fn on(fake: Fake, config: Config) -> World {
        World::over(Arc::new(fake), config)
    }

    fn over(fake: Arc<Fake>, config: Config) -> World {
        let client = Client::new(fake);
        let tasks = Tasks::new();
        let informers = Informers::new(client.clone(), tasks.clone());
        controllers::run(&informers, &tasks, config).unwrap();
        World { client, informers, tasks }
    }

    async fn create<K: Resource>(&self, namespace: &str, value: Value) -> K {
        let object: K = serde_json::from_value(value).unwrap();
        self.client.create(namespace, &object).await.unwrap()
    }

    /// Waits until the objects of a kind are as `good` wants them.
    async fn until<K: Resource>(&self, good: impl Fn(&[Arc<K>]) -> bool) -> Vec<Arc<K>> {
        let view: Informer<K> = self.informers.of();
        let changed = Arc::new(Notify::new());
        let notify = changed.clone();
        view.on_change(move |_| notify.notify_one());
        let wait = async {
            loop {
                let all = view.list();
                if view.is_synced() && good(&all) {
                    return all;
                }
                changed.notified().await;
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(all) => all,
            Err(_) => panic!("{} never became right: {:?}", K::KIND, view.list()),
        }
    }
}

fn deployment(image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "n"},
        "spec": {"replicas": 3, "progressDeadlineSeconds": 600,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": image}]}}}})
}

#[tokio::test]
async fn a_deployment_makes_pods_and_its_end_ends_them() {
    let world = World::start(Config::default());
    world.create::<Deployment>("n", deployment("v1")).await;
    let pods = world.until::<Pod>(|pods| pods.len() == 3).await;
    assert!(pods.iter().all(|p| p.metadata.name.as_ref().unwrap().starts_with("web-")));
    world
        .until::<ReplicaSet>(|sets| {
            let status = sets.first().and_then(|s| s.status.as_ref());
            status.is_some_and(|s| s.replicas == 3)
        })
        .await;
    // A pod that goes is replaced, and never by two.
    let first = pods[0].metadata.name.clone().unwrap();
    world.client.delete::<Pod>("n", &first, &DeleteParams::default()).await.unwrap();
    let gone = |p: &Arc<Pod>| p.metadata.name.as_ref() != Some(&first);
    world.until::<Pod>(|pods| pods.len() == 3 && pods.iter().all(gone)).await;
    let params = DeleteParams::default();
    world.client.delete::<Deployment>("n", "web", &params).await.unwrap();
    world.until::<Pod>(|pods| pods.is_empty()).await;
    world.until::<ReplicaSet>(|sets| sets.is_empty()).await;
    world.tasks.shutdown().await;
}

#[tokio::test]
async fn a_namespace_is_furnished_and_emptied() {
    let config = Config { cluster_ca_pem: "PEM".into(), ..Config::default() };
    let world = World::start(config);
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"},
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
    world.create::<Namespace>("", namespace).await;
    world.until::<ServiceAccount>(|all| all.len() == 1).await;
    world.until::<ConfigMap>(|all| all.len() == 1).await;
    world.client.delete::<Namespace>("", "n", &DeleteParams::default()).await.unwrap();
    world.until::<Namespace>(|all| all.is_empty()).await;
    world.until::<ConfigMap>(|all| all.is_empty()).await;
    world.tasks.shutdown().await;
}

#[tokio::test]
async fn services_get_endpoints_and_nodes_get_networks() {
    let config =
        Config { cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()], ..Config::default() };
    let world = World::start(config);
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"},
        "status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    world.create::<Node>("", node).await;
    world
        .until::<Node>(|nodes| {
            let spec = nodes.first().and_then(|n| n.spec.as_ref());
            spec.is_some_and(|s| {
                s.pod_cidr.as_deref() == Some("10.244.0.0/24")
                    && s.taints.as_ref().is_some_and(|t| t.len() == 2)
            })
        })
        .await;
    let service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "s", "namespace": "n"},
        "spec": {"selector": {"app": "x"}, "ports": [{"port": 80}]}});
    world.create::<Service>("n", service).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "n", "labels": {"app": "x"}},
        "spec": {"containers": []}, "status": {"podIP": "10.244.0.2",
            "conditions": [{"type": "Ready", "status": "True"}]}});
    world.create::<Pod>("n", pod).await;
    world
        .until::<EndpointSlice>(|all| {
            all.len() == 1 && all[0].endpoints.as_ref().is_some_and(|e| e.len() == 1)
        })
        .await;
    world.until::<Endpoints>(|all| all.len() == 1 && all[0].subsets.is_some()).await;
    world.tasks.shutdown().await;
}

#[tokio::test]
async fn endpoints_kept_by_hand_are_mirrored_while_they_last() {
    let world = World::start(Config::default());
    let service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "s", "namespace": "n"}, "spec": {"ports": [{"port": 80}]}});
    world.create::<Service>("n", service).await;
    let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "s", "namespace": "n"},
        "subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 80}]}]});
    world.create::<Endpoints>("n", endpoints).await;
    let shows = |all: &[Arc<EndpointSlice>]| all.len() == 1 && all[0].endpoints.is_some();
    world.until::<EndpointSlice>(shows).await;
    world.client.delete::<Endpoints>("n", "s", &DeleteParams::default()).await.unwrap();
    world.until::<EndpointSlice>(|all| all.is_empty()).await;
    world.tasks.shutdown().await;
}

#[tokio::test]
async fn a_budget_says_what_may_be_disrupted() {
    let world = World::start(Config::default());
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "b", "namespace": "n", "generation": 1},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    world.create::<PodDisruptionBudget>("n", budget).await;
    world.create::<Deployment>("n", deployment("v1")).await;
    let pods = world.until::<Pod>(|pods| pods.len() == 3).await;
    let is = |allowed: i32, healthy: i32| {
        move |all: &[Arc<PodDisruptionBudget>]| {
            let status = all.first().and_then(|b| b.status.as_ref());
            status.is_some_and(|s| {
                (s.expected_pods, s.desired_healthy, s.current_healthy, s.disruptions_allowed)
                    == (Some(3), Some(2), Some(healthy), Some(allowed))
            })
        }
    };
    world.until(is(0, 0)).await;
    for pod in &pods {
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let name = pod.metadata.name.as_deref().unwrap();
        world.client.patch::<Pod>("n", name, &Patch::Merge(ready)).await.unwrap();
    }
    world.until(is(1, 3)).await;
    world.tasks.shutdown().await;
}

/// A circle of owners, one of which ends in the foreground, ends whole.
#[tokio::test]
async fn a_circle_of_owners_has_an_end() {
    let world = World::start(Config::default());
    let mut made = Vec::new();
    for name in ["a", "b", "c"] {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": "n"}});
        made.push(world.create::<ConfigMap>("n", map).await);
    }
    for (at, map) in made.iter().enumerate() {
        let owner = &made[(at + 2) % 3].metadata;
        let patch = json!({"metadata": {"ownerReferences": [{"apiVersion": "v1",
            "kind": "ConfigMap", "name": owner.name, "uid": owner.uid, "controller": true,
            "blockOwnerDeletion": true}]}});
        let name = map.metadata.name.as_deref().unwrap();
        world.client.patch::<ConfigMap>("n", name, &Patch::Merge(patch)).await.unwrap();
    }
    world.until::<ConfigMap>(|all| all.iter().all(|m| m.metadata.owner_references.is_some())).await;
    let foreground = DeleteParams { propagation: Some("Foreground"), ..DeleteParams::default() };
    world.client.delete::<ConfigMap>("n", "a", &foreground).await.unwrap();
    world.until::<ConfigMap>(|all| all.is_empty()).await;
    world.tasks.shutdown().await;
}

#[tokio::test]
async fn pods_are_scheduled_when_a_node_comes() {
    let world = World::start(Config::default());
    scheduler::run(&world.informers, &world.tasks, scheduler::Config::default());
    world.create::<Deployment>("n", deployment("v1")).await;
    let refused = |pods: &[Arc<Pod>]| {
        let condition = |p: &Arc<Pod>| {
            let conditions = p.status.as_ref()?.conditions.as_ref()?;
            conditions.iter().find(|c| c.type_ == "PodScheduled")?.message.clone()
        };
        pods.len() == 3
            && pods
                .iter()
                .all(|p| condition(p).as_deref() == Some("no nodes available to schedule pods"))
    };
    world.until::<Pod>(refused).await;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"},
            "conditions": [{"type": "Ready", "status": "True"}]}});
    world.create::<Node>("", node).await;
    let bound = |p: &Arc<Pod>| p.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some("a");
    world.until::<Pod>(|pods| pods.len() == 3 && pods.iter().all(bound)).await;
    world.tasks.shutdown().await;
}

#[tokio::test]
async fn storage_in_use_is_kept_and_then_goes() {
    // Nobody binds: the test itself says what is bound.
    let controllers = ["*", "-persistentvolume-binder"].map(str::to_owned).to_vec();
    let world = World::start(Config { controllers, ..Config::default() });
    let none = DeleteParams::default();
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttributesClass",
        "metadata": {"name": "gold"}, "driverName": "d"});
    world.create::<VolumeAttributesClass>("", class).await;
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": "v"}, "status": {"phase": "Bound"}});
    world.create::<PersistentVolume>("", volume).await;
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "c", "namespace": "n"},
        "spec": {"volumeAttributesClassName": "gold"}});
    world.create::<PersistentVolumeClaim>("n", claim).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"},
        "spec": {"nodeName": "a", "containers": [],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}});
    world.create::<Pod>("n", pod).await;
    // Made without admission, they get their finalizers here.
    let held = |f: &Option<Vec<String>>| f.as_ref().is_some_and(|f| f.len() == 1);
    world
        .until::<PersistentVolumeClaim>(|all| all.iter().any(|o| held(&o.metadata.finalizers)))
        .await;
    world.until::<PersistentVolume>(|all| all.iter().any(|o| held(&o.metadata.finalizers))).await;
    world
        .until::<VolumeAttributesClass>(|all| all.iter().any(|o| held(&o.metadata.finalizers)))
        .await;
    world.client.delete::<VolumeAttributesClass>("", "gold", &none).await.unwrap();
    world.client.delete::<PersistentVolume>("", "v", &none).await.unwrap();
    world.client.delete::<PersistentVolumeClaim>("n", "c", &none).await.unwrap();
    // A second claim that nothing uses shows that the first was looked at, too.
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata":
        {"name": "d", "namespace": "n", "finalizers": ["kubernetes.io/pvc-protection"]}});
    world.create::<PersistentVolumeClaim>("n", claim).await;
    world.client.delete::<PersistentVolumeClaim>("n", "d", &none).await.unwrap();
    let only = |all: &[Arc<PersistentVolumeClaim>]| {
        all.len() == 1 && all[0].metadata.name.as_deref() == Some("c")
    };
    world.until::<PersistentVolumeClaim>(only).await;
    assert!(world.client.get::<VolumeAttributesClass>("", "gold").await.is_ok());
    assert!(world.client.get::<PersistentVolume>("", "v").await.is_ok());
    world.client.delete::<Pod>("n", "p", &none).await.unwrap();
    world.until::<PersistentVolumeClaim>(|all| all.is_empty()).await;
    world.until::<VolumeAttributesClass>(|all| all.is_empty()).await;
    let released = Patch::Merge(json!({"status": {"phase": "Released"}}));
    world.client.patch_status::<PersistentVolume>("", "v", &released).await.unwrap();
    world.until::<PersistentVolume>(|all| all.is_empty()).await;
    world.tasks.shutdown().await;
}

#[tokio::test]
async fn a_quota_counts_what_is_there_and_gives_back_what_goes() {
    let world = World::start(Config::default());
    let pod = |name: &str, seconds: Value| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "n"},
            "spec": {"containers": [], "activeDeadlineSeconds": seconds}})
    };
    world.create::<Pod>("n", pod("a", Value::Null)).await;
    world.create::<Pod>("n", pod("b", Value::Null)).await;
    world.create::<Pod>("n", pod("ends", json!(60))).await;
    let hard = json!({"pods": "9", "count/configmaps": "5", "count/gizmos.example.com": "1"});
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": {"name": "q", "namespace": "n"},
        "spec": {"hard": hard, "scopes": ["NotTerminating"]}});
    world.create::<ResourceQuota>("n", quota).await;
    let used = |all: &[Arc<ResourceQuota>]| {
        let status = all.first().and_then(|q| q.status.as_ref());
        serde_json::to_value(status.map(|s| (&s.hard, &s.used))).unwrap()
    };
    // Configmaps are in no scope; nobody knows gizmos.
    let counted = json!([hard, {"pods": "2", "count/configmaps": "0"}]);
    world.until::<ResourceQuota>(|all| used(all) == counted).await;
    // Two more are charged and under way; one goes.
    let charge = Patch::Merge(json!({"status": {"used": {"pods": "4"}}}));
    world.client.patch_status::<ResourceQuota>("n", "q", &charge).await.unwrap();
    world.client.delete::<Pod>("n", "a", &DeleteParams::default()).await.unwrap();
    let counted = json!([hard, {"pods": "3", "count/configmaps": "0"}]);
    world.until::<ResourceQuota>(|all| used(all) == counted).await;
    world.tasks.shutdown().await;
}
