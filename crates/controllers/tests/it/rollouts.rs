//! Rollouts under changes that come at any moment: none may stand still.

use std::sync::Arc;
use std::time::Duration;

use client::{Client, Informers, Patch, Queue, Tasks};
use controllers::Config;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use serde_json::json;

use crate::fake::Fake;
use crate::{World, deployment};

/// Rollouts of one cluster, one after the other.
const ROLLOUTS: usize = 20;
/// Clusters, unless `ROLLOUT_SEEDS` says otherwise.
const SEEDS: u64 = 10;

/// A small generator: which pod is ready when.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Makes pods ready after a while, now and then unready again for a moment.
async fn run_pods(world: Arc<World>, seed: u64) {
    let pods = world.informers.of::<Pod>();
    let queue = Queue::new();
    let keys = queue.clone();
    pods.on_change(move |change| keys.add(change.object().metadata.name.clone().unwrap()));
    let mut random = Random(seed);
    while let Some(name) = queue.next().await {
        let ready = pods.get("n", &name).map(|p| {
            let conditions = p.status.iter().flat_map(|s| s.conditions.iter().flatten());
            conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
        });
        if let Some(ready) = ready {
            tokio::time::sleep(Duration::from_micros(random.below(3000))).await;
            let falls = ready && random.below(20) == 0;
            if !ready || falls {
                let status = if falls { "False" } else { "True" };
                let patch = Patch::Merge(json!({"status": {"phase": "Running", "conditions": [
                    {"type": "Ready", "status": status,
                        "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}));
                // It may have gone meanwhile.
                let _gone = world.client.patch_status::<Pod>("n", &name, &patch).await;
            }
        }
        queue.done(&name);
    }
}

async fn roll_out(seed: u64) {
    let client = Client::new(Arc::new(Fake::default()));
    let tasks = Tasks::new();
    let informers = Informers::new(client.clone(), tasks.clone());
    let config = Config {
        controllers: ["replicaset", "deployment", "garbagecollector"].map(str::to_owned).to_vec(),
        ..Config::default()
    };
    controllers::run(&informers, &tasks, config).unwrap();
    let world = Arc::new(World { client, informers, tasks });
    world.tasks.spawn("kubelet", run_pods(world.clone(), seed));
    world.create::<Deployment>("n", deployment("v0")).await;
    for round in 1..=ROLLOUTS {
        let image = format!("v{round}");
        let patch = json!({"spec": {"template": deployment(&image)["spec"]["template"]}});
        world.client.patch::<Deployment>("n", "web", &Patch::Merge(patch)).await.unwrap();
        world
            .until::<Deployment>(|all| {
                let status = all[0].status.clone().unwrap_or_default();
                status.observed_generation == all[0].metadata.generation
                    && status.updated_replicas == Some(3)
                    && status.replicas == Some(3)
                    && status.available_replicas == Some(3)
            })
            .await;
    }
    world.tasks.shutdown().await;
}

/// In paused time a rollout that stands still fails at once: nothing is left to wait for but the patience.
#[tokio::test(start_paused = true)]
async fn no_rollout_stands_still() {
    let seeds = std::env::var("ROLLOUT_SEEDS").ok().and_then(|n| n.parse().ok());
    for seed in 1..=seeds.unwrap_or(SEEDS) {
        roll_out(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)).await;
    }
}

#[tokio::test]
async fn configuration_that_changes_rolls_its_workload_out() {
    let world = World::start(Config::default());
    let map =
        |value: &str| json!({"metadata": {"name": "c", "namespace": "n"}, "data": {"k": value}});
    world.create::<ConfigMap>("n", map("1")).await;
    let mut deployment = deployment("v1");
    deployment["metadata"]["annotations"] = json!({"rollout.trireme.io/on-config-change": "true"});
    deployment["spec"]["template"]["spec"]["containers"][0]["envFrom"] =
        json!([{"configMapRef": {"name": "c"}}]);
    world.create::<Deployment>("n", deployment).await;
    // The content is noted, and nothing is rolled out for it.
    let observed = |all: &[Arc<Deployment>]| {
        let annotations = all.first().and_then(|d| d.metadata.annotations.clone());
        annotations.and_then(|a| a.get("rollout.trireme.io/observed-config").cloned())
    };
    let first = world.until::<Deployment>(|all| observed(all).is_some()).await;
    let hash = |all: &[Arc<Deployment>]| {
        let template = all.first().and_then(|d| d.spec.as_ref()).map(|s| s.template.clone());
        let annotations = template.and_then(|t| t.metadata).and_then(|m| m.annotations);
        annotations.and_then(|a| a.get("rollout.trireme.io/config-hash").cloned())
    };
    assert_eq!(hash(&first), None);
    world.until::<ReplicaSet>(|sets| sets.len() == 1).await;
    let changed = Patch::Merge(json!({"data": {"k": "2"}}));
    world.client.patch::<ConfigMap>("n", "c", &changed).await.unwrap();
    world.until::<ReplicaSet>(|sets| sets.len() == 2).await;
    let all = world.until::<Deployment>(|all| hash(all).is_some()).await;
    assert_eq!(hash(&all), observed(&all));
    world.tasks.shutdown().await;
}
