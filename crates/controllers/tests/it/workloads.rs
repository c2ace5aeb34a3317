//! Workloads over the in-memory API, with something that runs their pods.

use std::sync::Arc;
use std::time::Duration;

use client::{DeleteParams, Patch, Queue, Resource};
use controllers::Config;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Event, Node, PersistentVolumeClaim, Pod, ReplicationController};
use serde_json::{Value, json};

use crate::fake::Fake;
use crate::{World, deployment};

impl World {
    /// Runs pods: each becomes what `run` says of it, once.
    fn run_pods(&self, run: impl Fn(&Pod) -> Value + Send + 'static) {
        let pods = self.informers.of::<Pod>();
        let queue = Queue::new();
        let keys = queue.clone();
        pods.on_change(move |change| {
            let meta = &change.object().metadata;
            keys.add((meta.namespace.clone().unwrap(), meta.name.clone().unwrap()));
        });
        let client = self.client.clone();
        self.tasks.spawn("kubelet", async move {
            while let Some((space, name)) = queue.next().await {
                if let Some(pod) = pods.get(&space, &name).filter(|p| phase(p) == "Pending") {
                    let patch = Patch::Merge(json!({"status": run(&pod)}));
                    // It may have gone meanwhile.
                    let _gone = client.patch_status::<Pod>(&space, &name, &patch).await;
                }
                queue.done(&(space, name));
            }
        });
    }

    async fn patch<K: Resource>(&self, name: &str, patch: Value) {
        self.client.patch::<K>("n", name, &Patch::Merge(patch)).await.unwrap();
    }

    async fn delete<K: Resource>(&self, name: &str) {
        self.client.delete::<K>("n", name, &DeleteParams::default()).await.unwrap();
    }
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("")
}

fn name<K: Resource>(object: &K) -> String {
    object.metadata().name.clone().unwrap()
}

fn image(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.containers[0].image.as_deref()).unwrap()
}

/// What a pod says that runs and is ready.
fn ready(_: &Pod) -> Value {
    json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
}

fn ended(phase: &str, code: i32) -> Value {
    json!({"phase": phase, "containerStatuses": [{"name": "c", "image": "i", "imageID": "",
        "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": code,
            "finishedAt": "2026-01-01T00:00:00Z"}}}]})
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"w": "w"}}, "spec": {"restartPolicy": "Never",
        "containers": [{"name": "c", "image": image}]}})
}

fn job(spec: Value) -> Value {
    let mut full = json!({"completions": 3, "parallelism": 2, "backoffLimit": 6,
        "selector": {"matchLabels": {"w": "w"}}, "template": template("i")});
    for (key, value) in spec.as_object().unwrap() {
        full[key] = value.clone();
    }
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": "n"},
        "spec": full})
}

fn ended_with(job: &Job, condition: &str) -> bool {
    let conditions = job.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == condition && c.status == "True")
}

async fn events(world: &World, reason: &str) -> Vec<String> {
    let found =
        world.until::<Event>(|all| all.iter().any(|e| e.reason.as_deref() == Some(reason))).await;
    let of = found.iter().filter(|e| e.reason.as_deref() == Some(reason));
    of.filter_map(|e| e.message.clone()).collect()
}

#[tokio::test]
async fn a_job_runs_to_its_end_and_counts_each_pod_once() {
    let world = World::start(Config::default());
    world.run_pods(|_| ended("Succeeded", 0));
    world.create::<Job>("n", job(json!({}))).await;
    let jobs = world.until::<Job>(|all| all.iter().any(|j| ended_with(j, "Complete"))).await;
    let status = jobs[0].status.clone().unwrap();
    assert_eq!((status.succeeded, status.failed, status.active), (Some(3), None, None));
    assert!(status.completion_time.is_some());
    // Counted pods have no finalizer any more.
    let free = |p: &Arc<Pod>| p.metadata.finalizers.as_ref().is_none_or(Vec::is_empty);
    world.until::<Pod>(|pods| pods.len() == 3 && pods.iter().all(free)).await;
    assert_eq!(events(&world, "Completed").await, ["Job completed"]);
    world.tasks.shutdown().await;
}

#[tokio::test]
async fn an_indexed_job_runs_each_index() {
    let world = World::start(Config::default());
    world.run_pods(|_| ended("Succeeded", 0));
    world.create::<Job>("n", job(json!({"completionMode": "Indexed", "completions": 7}))).await;
    let jobs = world.until::<Job>(|all| all.iter().any(|j| ended_with(j, "Complete"))).await;
    let status = jobs[0].status.clone().unwrap();
    assert_eq!((status.succeeded, status.completed_indexes.as_deref()), (Some(7), Some("0-6")));
    events(&world, "Completed").await;
    // Figures are the process's: this is the only test of Indexed Jobs.
    for line in [
        r#"job_controller_job_pods_finished_total{completion_mode="Indexed",result="succeeded"} 7"#,
        r#"job_controller_jobs_finished_total{completion_mode="Indexed",reason="CompletionsReached",result="succeeded"} 1"#,
        r#"job_controller_job_syncs_total{action="pods_created",completion_mode="Indexed",result="success"} "#,
        r#"job_controller_job_sync_duration_seconds_count{action="pods_created",completion_mode="Indexed",result="success"} "#,
    ] {
        let told = controllers::figures();
        assert!(told.contains(line), "{line} is not in {told}");
    }
    world.tasks.shutdown().await;
}

#[tokio::test]
async fn a_failing_job_ends_with_the_reason() {
    let world = World::start(Config::default());
    world.run_pods(|_| ended("Failed", 1));
    world.create::<Job>("n", job(json!({"backoffLimit": 0, "parallelism": 1}))).await;
    let jobs = world.until::<Job>(|all| all.iter().any(|j| ended_with(j, "Failed"))).await;
    assert_eq!(jobs[0].status.as_ref().unwrap().failed, Some(1));
    let told = events(&world, "BackoffLimitExceeded").await;
    assert_eq!(told, ["Job has reached the specified backoff limit"]);
    world.tasks.shutdown().await;
}

#[tokio::test]
async fn a_suspended_job_has_no_pods_until_it_is_resumed() {
    let world = World::start(Config::default());
    world.run_pods(ready);
    world.create::<Job>("n", job(json!({"suspend": true}))).await;
    world.until::<Job>(|all| all.iter().any(|j| ended_with(j, "Suspended"))).await;
    assert!(world.informers.of::<Pod>().list().is_empty());
    world.patch::<Job>("j", json!({"spec": {"suspend": false}})).await;
    world.until::<Pod>(|pods| pods.len() == 2).await;
    world.patch::<Job>("j", json!({"spec": {"suspend": true}})).await;
    world.until::<Pod>(|pods| pods.is_empty()).await;
    world.tasks.shutdown().await;
}

#[tokio::test]
async fn the_pods_of_a_deleted_job_go() {
    let world = World::start(Config::default());
    world.run_pods(ready);
    world.create::<Job>("n", job(json!({}))).await;
    world.until::<Pod>(|pods| pods.iter().filter(|p| phase(p) == "Running").count() == 2).await;
    world.delete::<Job>("j").await;
    world.until::<Pod>(|pods| pods.is_empty()).await;
    world.tasks.shutdown().await;
}

#[tokio::test]
async fn a_finished_job_goes_after_its_time() {
    let world = World::start(Config::default());
    world.run_pods(|_| ended("Succeeded", 0));
    world.create::<Job>("n", job(json!({"ttlSecondsAfterFinished": 0}))).await;
    world.until::<Pod>(|pods| !pods.is_empty()).await;
    world.until::<Job>(|all| all.is_empty()).await;
    world.until::<Pod>(|pods| pods.is_empty()).await;
    world.tasks.shutdown().await;
}

#[tokio::test]
async fn a_cron_job_starts_what_is_due_and_keeps_a_history() {
    let world = World::start(Config::default());
    world.run_pods(|_| ended("Succeeded", 0));
    // The in-memory API says that it was made long ago.
    let cron = json!({"apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": {"name": "c", "namespace": "n"},
        "spec": {"schedule": "* * * * *", "concurrencyPolicy": "Allow",
            "successfulJobsHistoryLimit": 0, "jobTemplate": {"spec": job(json!({}))["spec"]}}});
    world.create::<CronJob>("n", cron).await;
    let crons = world
        .until::<CronJob>(|all| {
            let status = all.first().and_then(|c| c.status.as_ref());
            status.is_some_and(|s| s.last_successful_time.is_some() && s.active.is_none())
        })
        .await;
    assert!(crons[0].status.as_ref().unwrap().last_schedule_time.is_some());
    assert!(!events(&world, "TooManyMissedTimes").await.is_empty());
    let started = events(&world, "SuccessfulCreate").await;
    assert!(started.iter().any(|text| text.starts_with("Created job c-")), "{started:?}");
    let skew = "cronjob_controller_job_creation_skew_duration_seconds_count 1\n";
    assert!(controllers::figures().contains(skew), "{}", controllers::figures());
    world.tasks.shutdown().await;
}

fn node(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
}

/// Nodes stay as they are made: nobody here gives signs of life for them.
fn without_nodes() -> Config {
    let controllers = ["*", "-nodelifecycle", "-taint-eviction", "-podgc"];
    Config { controllers: controllers.map(str::to_owned).to_vec(), ..Config::default() }
}

#[tokio::test]
async fn a_daemon_set_follows_the_nodes_and_rolls() {
    let world = World::start(without_nodes());
    world.run_pods(ready);
    for name in ["a", "b"] {
        world.create::<Node>("", node(name)).await;
    }
    let set = json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "d", "namespace": "n"}, "spec": {
            "selector": {"matchLabels": {"w": "w"}}, "template": template("v1"),
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}}});
    world.create::<DaemonSet>("n", set).await;
    let is_ready = |all: &[Arc<DaemonSet>], n: i32| {
        all.first().and_then(|s| s.status.as_ref()).is_some_and(|s| {
            s.number_ready == n
                && s.desired_number_scheduled == n
                && s.updated_number_scheduled == Some(n)
                && s.observed_generation == all[0].metadata.generation
        })
    };
    world.until::<DaemonSet>(|all| is_ready(all, 2)).await;
    world.create::<Node>("", node("c")).await;
    world.until::<DaemonSet>(|all| is_ready(all, 3)).await;
    world.patch::<DaemonSet>("d", json!({"spec": {"template": template("v2")}})).await;
    world.until::<Pod>(|pods| pods.len() == 3 && pods.iter().all(|p| image(p) == "v2")).await;
    world.until::<DaemonSet>(|all| is_ready(all, 3)).await;
    let revisions = world.informers.of::<ControllerRevision>().list();
    assert_eq!(revisions.len(), 2);
    let taint = json!({"spec": {"taints": [{"key": "x", "effect": "NoExecute"}]}});
    world.client.patch::<Node>("", "a", &Patch::Merge(taint)).await.unwrap();
    world.until::<Pod>(|pods| pods.len() == 2).await;
    world.tasks.shutdown().await;
}

fn stateful_set(spec: Value) -> Value {
    let mut full = json!({"replicas": 3, "serviceName": "s",
        "selector": {"matchLabels": {"w": "w"}}, "template": template("v1"),
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]});
    for (key, value) in spec.as_object().unwrap() {
        full[key] = value.clone();
    }
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "web", "namespace": "n"}, "spec": full})
}

fn is_done(all: &[Arc<StatefulSet>], n: i32) -> bool {
    all.first().and_then(|s| s.status.as_ref()).is_some_and(|s| {
        s.ready_replicas.unwrap_or(0) == n
            && s.updated_replicas.unwrap_or(0) == n
            && s.replicas == n
            && s.current_revision == s.update_revision
            && s.observed_generation == all[0].metadata.generation
    })
}

#[tokio::test]
async fn a_stateful_set_is_created_updated_and_scaled_in_order() {
    let world = World::start(without_nodes());
    world.run_pods(ready);
    world.create::<StatefulSet>("n", stateful_set(json!({}))).await;
    world.until::<StatefulSet>(|all| is_done(all, 3)).await;
    let names = |pods: &[Arc<Pod>]| pods.iter().map(|p| name(&**p)).collect::<Vec<_>>();
    assert_eq!(names(&world.informers.of::<Pod>().list()), ["web-0", "web-1", "web-2"]);
    let claims = world.informers.of::<PersistentVolumeClaim>().list();
    assert_eq!(
        claims.iter().map(|c| name(&**c)).collect::<Vec<_>>(),
        ["data-web-0", "data-web-1", "data-web-2"]
    );
    world.patch::<StatefulSet>("web", json!({"spec": {"template": template("v2")}})).await;
    world.until::<Pod>(|pods| pods.len() == 3 && pods.iter().all(|p| image(p) == "v2")).await;
    world.until::<StatefulSet>(|all| is_done(all, 3)).await;
    // Back: the first revision becomes the newest.
    world.patch::<StatefulSet>("web", json!({"spec": {"template": template("v1")}})).await;
    world.until::<Pod>(|pods| pods.len() == 3 && pods.iter().all(|p| image(p) == "v1")).await;
    world.until::<StatefulSet>(|all| is_done(all, 3)).await;
    let mut numbers: Vec<i64> =
        world.informers.of::<ControllerRevision>().list().iter().map(|r| r.revision).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3]);
    world.patch::<StatefulSet>("web", json!({"spec": {"replicas": 1}})).await;
    world.until::<Pod>(|pods| names(pods) == ["web-0"]).await;
    world.until::<StatefulSet>(|all| is_done(all, 1)).await;
    assert_eq!(world.informers.of::<PersistentVolumeClaim>().list().len(), 3);
    let told = events(&world, "SuccessfulDelete").await;
    assert!(told.contains(&"Delete Pod web-2 in StatefulSet web successful".to_owned()));
    world.tasks.shutdown().await;
}

#[tokio::test]
async fn claims_go_with_the_pods_when_the_policy_says_so() {
    let world = World::start(without_nodes());
    world.run_pods(ready);
    let policy = json!({"persistentVolumeClaimRetentionPolicy":
        {"whenScaled": "Delete", "whenDeleted": "Delete"}});
    world.create::<StatefulSet>("n", stateful_set(policy)).await;
    world.until::<StatefulSet>(|all| is_done(all, 3)).await;
    let owned = |c: &Arc<PersistentVolumeClaim>| {
        c.metadata.owner_references.as_ref().is_some_and(|r| r[0].kind == "StatefulSet")
    };
    world.until::<PersistentVolumeClaim>(|all| all.len() == 3 && all.iter().all(owned)).await;
    world.patch::<StatefulSet>("web", json!({"spec": {"replicas": 1}})).await;
    world.until::<PersistentVolumeClaim>(|all| all.len() == 1).await;
    world.delete::<StatefulSet>("web").await;
    world.until::<PersistentVolumeClaim>(|all| all.is_empty()).await;
    world.until::<Pod>(|pods| pods.is_empty()).await;
    world.tasks.shutdown().await;
}

#[tokio::test]
async fn a_replication_controller_keeps_its_pods() {
    let world = World::start(without_nodes());
    world.run_pods(ready);
    let mut template = template("i");
    template["spec"]["restartPolicy"] = "Always".into();
    let controller = json!({"apiVersion": "v1", "kind": "ReplicationController",
        "metadata": {"name": "c", "namespace": "n"},
        "spec": {"replicas": 2, "selector": {"w": "w"}, "template": template}});
    world.create::<ReplicationController>("n", controller).await;
    let available = |all: &[Arc<ReplicationController>], n: i32| {
        let status = all.first().and_then(|c| c.status.as_ref());
        status.is_some_and(|s| s.available_replicas.unwrap_or(0) == n && s.replicas == n)
    };
    world.until::<ReplicationController>(|all| available(all, 2)).await;
    let first = name(&*world.informers.of::<Pod>().list()[0]);
    world.delete::<Pod>(&first).await;
    world.until::<Pod>(|pods| pods.len() == 2 && pods.iter().all(|p| name(&**p) != first)).await;
    world.patch::<ReplicationController>("c", json!({"spec": {"replicas": 0}})).await;
    world.until::<ReplicationController>(|all| available(all, 0)).await;
    world.until::<Pod>(|pods| pods.is_empty()).await;
    world.tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_has_converged_is_not_written_again() {
    let fake = Arc::new(Fake::default());
    let world = World::over(fake.clone(), without_nodes());
    world.run_pods(ready);
    world.create::<Node>("", node("a")).await;
    let labelled = |mut object: Value, label: &str| {
        object["spec"]["selector"]["matchLabels"] = json!({"w": label});
        object["spec"]["template"]["metadata"]["labels"] = json!({"w": label});
        object
    };
    world.create::<Deployment>("n", labelled(deployment("v1"), "deployment")).await;
    world.create::<StatefulSet>("n", labelled(stateful_set(json!({})), "stateful")).await;
    world.create::<Job>("n", labelled(job(json!({})), "job")).await;
    let daemons = json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "d", "namespace": "n"}, "spec": {"selector": {},
            "template": template("v1")}});
    world.create::<DaemonSet>("n", labelled(daemons, "daemon")).await;
    world.until::<StatefulSet>(|all| is_done(all, 3)).await;
    world.until::<Pod>(|pods| pods.len() == 9).await;
    // What is still under way ends, and then nothing is left to do.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let settled = fake.revision();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(fake.revision(), settled);
    world.tasks.shutdown().await;
}
