//! The scheduler over an in-memory API, on paused time: what it writes, and what wakes its pods.

// A panic is how a test fails; the lint's own exception does not reach integration tests' helpers.
#![allow(clippy::unwrap_used)]

mod fake;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{Client, DeleteParams, Informer, Informers, Patch, Resource, Tasks};
use k8s_openapi::api::core::v1::{
    Event, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod,
};
use k8s_openapi::api::storage::v1::StorageClass;
use scheduler::{Config, ExtenderTransport, Setup};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::fake::Fake;

/// In paused time; only a failure waits for it.
const PATIENCE: Duration = Duration::from_secs(3600);

struct World {
    fake: Arc<Fake>,
    client: Client,
    informers: Informers,
    tasks: Tasks,
}

impl World {
    fn start() -> World {
        World::with(Setup::default())
    }

    fn with(setup: Setup) -> World {
        let fake = Arc::new(Fake::default());
        let client = Client::new(fake.clone());
        let tasks = Tasks::new();
        let informers = Informers::new(client.clone(), tasks.clone());
        setup.start(&informers, &tasks).unwrap();
        World { fake, client, informers, tasks }
    }

    async fn create<K: Resource>(&self, namespace: &str, value: Value) -> K {
        let object: K = serde_json::from_value(value).unwrap();
        self.client.create(namespace, &object).await.unwrap()
    }

    async fn node(&self, name: &str, extra: Value) {
        let mut value = json!({"metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name}}, "spec": {},
            "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}}});
        merge(&mut value, &extra);
        self.create::<Node>("", value).await;
    }

    async fn pod(&self, name: &str, cpu: &str, extra: Value) {
        let mut value = json!({"metadata": {"name": name, "namespace": "n", "labels": {"app": "a"}},
            "spec": {"containers": [{"name": "c", "image": "i",
                "resources": {"requests": {"cpu": cpu}}}]}});
        merge(&mut value, &extra);
        self.create::<Pod>("n", value).await;
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
            Err(_) => panic!("{} never became right: {:#?}", K::KIND, view.list()),
        }
    }

    /// Waits until the pod is on a node, and says which.
    async fn bound(&self, name: &str) -> String {
        let pods = self.until::<Pod>(|pods| node_of(pods, name).is_some()).await;
        node_of(&pods, name).unwrap()
    }

    /// Waits until the pod is told why it has no node.
    async fn refused(&self, name: &str) -> (String, String) {
        let told = |pods: &[Arc<Pod>]| {
            let pod = find(pods, name)?;
            let conditions = pod.status.as_ref()?.conditions.as_ref()?;
            let condition = conditions.iter().find(|c| c.type_ == "PodScheduled")?;
            Some((condition.reason.clone()?, condition.message.clone()?))
        };
        let pods = self.until::<Pod>(|pods| told(pods).is_some()).await;
        told(&pods).unwrap()
    }

    async fn patch<K: Resource>(&self, namespace: &str, name: &str, patch: Value) {
        self.client.patch::<K>(namespace, name, &Patch::Merge(patch)).await.unwrap();
    }

    async fn stop(self) {
        assert!(self.tasks.health().failing().is_empty());
        self.tasks.shutdown().await;
    }
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

fn find<'a>(pods: &'a [Arc<Pod>], name: &str) -> Option<&'a Arc<Pod>> {
    pods.iter().find(|p| p.metadata.name.as_deref() == Some(name))
}

fn node_of(pods: &[Arc<Pod>], name: &str) -> Option<String> {
    find(pods, name)?.spec.as_ref()?.node_name.clone()
}

fn config(extra: Value) -> Config {
    let mut tree = json!({"apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration"});
    merge(&mut tree, &extra);
    scheduler::load_config(&tree).unwrap()
}

#[tokio::test(start_paused = true)]
async fn pods_are_bound_and_told_of() {
    let world = World::start();
    world.node("a", json!({})).await;
    for i in 0..20 {
        world.pod(&format!("p{i}"), "100m", json!({})).await;
    }
    for i in 0..20 {
        assert_eq!(world.bound(&format!("p{i}")).await, "a");
    }
    let told = |e: &Arc<Event>| {
        let assigned = Some("Successfully assigned n/p7 to a");
        e.reason.as_deref() == Some("Scheduled") && e.message.as_deref() == assigned
    };
    world.until::<Event>(|events| events.iter().any(told)).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_fits_nowhere_is_told_what_would_have_to_change() {
    let world = World::start();
    world.node("a", json!({})).await;
    world.pod("p", "6", json!({})).await;
    let (reason, message) = world.refused("p").await;
    let upstream = "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, \
                    preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
    let why = " To fit on the nearest node a: 2 more cpu than it has in all.";
    assert_eq!((reason.as_str(), message), ("Unschedulable", format!("{upstream}{why}")));
    let told = |e: &Arc<Event>| {
        e.reason.as_deref() == Some("FailedScheduling")
            && e.message.as_deref() == Some(&format!("{upstream}{why}"))
    };
    world.until::<Event>(|events| events.iter().any(told)).await;
    // The node grows.
    world.patch::<Node>("", "a", json!({"status": {"allocatable": {"cpu": "8"}}})).await;
    assert_eq!(world.bound("p").await, "a");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_nodes_pods_wait_for_the_first() {
    let world = World::start();
    world.pod("p", "1", json!({})).await;
    let told = world.refused("p").await;
    assert_eq!(told, ("Unschedulable".into(), "no nodes available to schedule pods".into()));
    world.node("a", json!({})).await;
    assert_eq!(world.bound("p").await, "a");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_namespaces_new_labels_wake_pods_that_select_by_them() {
    let world = World::start();
    world.node("a", json!({})).await;
    world.create::<Namespace>("", json!({"metadata": {"name": "db"}})).await;
    world.create::<Namespace>("", json!({"metadata": {"name": "n"}})).await;
    let db = json!({"metadata": {"name": "db", "namespace": "db", "labels": {"app": "db"}},
        "spec": {"nodeName": "a", "containers": []}});
    world.create::<Pod>("db", db).await;
    let near = json!({"spec": {"affinity": {"podAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "kubernetes.io/hostname",
            "labelSelector": {"matchLabels": {"app": "db"}},
            "namespaceSelector": {"matchLabels": {"team": "x"}}}]}}}});
    world.pod("p", "1", near).await;
    let (_, message) = world.refused("p").await;
    assert!(message.contains("1 node(s) didn't match pod affinity rules"), "{message}");
    let before = Instant::now();
    world.patch::<Namespace>("", "db", json!({"metadata": {"labels": {"team": "x"}}})).await;
    assert_eq!(world.bound("p").await, "a");
    assert!(before.elapsed() < Duration::from_secs(60), "woken, not flushed");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn preemption_ends_the_lesser_pod_and_takes_its_place() {
    let world = World::start();
    world.node("a", json!({})).await;
    world.pod("low", "3", json!({"spec": {"priority": 1}})).await;
    world.bound("low").await;
    world.pod("high", "3", json!({"spec": {"priority": 10}})).await;
    assert_eq!(world.bound("high").await, "a");
    let pods = world.until::<Pod>(|pods| find(pods, "low").is_none()).await;
    let status = find(&pods, "high").unwrap().status.clone().unwrap();
    assert_eq!(status.nominated_node_name.as_deref(), Some("a"));
    let told = |e: &Arc<Event>| {
        let message = e.message.as_deref().unwrap_or("");
        e.reason.as_deref() == Some("Preempted") && message.ends_with(" on node a")
    };
    world.until::<Event>(|events| events.iter().any(told)).await;
    counted("scheduler_preemption_attempts_total ", true).await;
    counted("scheduler_preemption_victims_count ", true).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_binding_that_fails_gives_the_room_back_and_is_tried_again() {
    let world = World::start();
    world.fake.fail_bindings(2);
    world.node("a", json!({})).await;
    let before = Instant::now();
    world.pod("p", "3", json!({})).await;
    let (reason, message) = world.refused("p").await;
    assert_eq!(reason, "SchedulerError");
    assert!(message.starts_with("running Bind plugin \"DefaultBinder\": "), "{message}");
    assert_eq!(world.bound("p").await, "a");
    assert!(before.elapsed() >= Duration::from_secs(3), "after one and two seconds");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn gated_pods_are_not_tried() {
    let world = World::start();
    world.node("a", json!({})).await;
    world.pod("gated", "1", json!({"spec": {"schedulingGates": [{"name": "g"}]}})).await;
    world.pod("free", "1", json!({})).await;
    world.bound("free").await;
    tokio::time::sleep(Duration::from_secs(700)).await;
    let pods: Informer<Pod> = world.informers.of();
    assert_eq!(node_of(&pods.list(), "gated"), None);
    world.patch::<Pod>("n", "gated", json!({"spec": {"schedulingGates": null}})).await;
    assert_eq!(world.bound("gated").await, "a");
    world.stop().await;
}

/// Waits until a line is among the figures, or is not: what was done is counted a moment later, and a
/// planner's thread lives a moment longer than its scheduler.
async fn counted(line: &str, is_told: bool) {
    for _ in 0..100_000 {
        if scheduler::figures().contains(line) == is_told {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{line} is told: {}: {}", !is_told, scheduler::figures());
}

/// Figures are the process's: those of this profile are this test's.
#[tokio::test(start_paused = true)]
async fn attempts_and_what_waits_are_counted() {
    let profile = json!({"profiles": [{"schedulerName": "counted"}]});
    let world = World::with(Setup { config: config(profile), ..Setup::default() });
    world.node("a", json!({})).await;
    let pod = async |name: &str, cpu: &str, more: Value| {
        let mut extra = json!({"spec": {"schedulerName": "counted"}});
        merge(&mut extra, &more);
        world.pod(name, cpu, extra).await;
    };
    pod("small", "1", json!({})).await;
    world.bound("small").await;
    pod("large", "6", json!({})).await;
    world.refused("large").await;
    pod("gated", "1", json!({"spec": {"schedulingGates": [{"name": "g"}]}})).await;
    let gated = "scheduler_unschedulable_pods{plugin=\"SchedulingGates\",profile=\"counted\"} 1\n";
    for line in [
        gated,
        "scheduler_schedule_attempts_total{profile=\"counted\",result=\"scheduled\"} 1\n",
        "scheduler_schedule_attempts_total{profile=\"counted\",result=\"unschedulable\"} 1\n",
        "scheduler_scheduling_attempt_duration_seconds_count{profile=\"counted\",result=\"scheduled\"} 1\n",
        "scheduler_unschedulable_pods{plugin=\"NodeResourcesFit\",profile=\"counted\"} 1\n",
        "scheduler_pod_scheduling_sli_duration_seconds_count{attempts=\"1\"} ",
        "scheduler_pending_pods{queue=\"gated\"} ",
        "scheduler_queue_incoming_pods_total{event=\"UnschedulablePodAdd\",queue=\"active\"} ",
        "scheduler_queue_incoming_pods_total{event=\"ScheduleAttemptFailure\",queue=\"unschedulable\"} ",
        "scheduler_framework_extension_point_duration_seconds_count{extension_point=\"Filter\",profile=\"counted\",status=\"Success\"} ",
        "scheduler_framework_extension_point_duration_seconds_count{extension_point=\"Bind\",profile=\"counted\",status=\"Success\"} 1\n",
        "scheduler_cache_size{type=\"nodes\"} ",
        "scheduler_plugin_evaluation_total{extension_point=\"PreFilter\",plugin=\"NodeResourcesFit\",profile=\"counted\"} 2\n",
        "scheduler_plugin_evaluation_total{extension_point=\"Filter\",plugin=\"NodeResourcesFit\",profile=\"counted\"} 2\n",
        "scheduler_goroutines{operation=\"binding\"} ",
        "scheduler_pod_scheduling_attempts_count ",
        "scheduler_scheduling_algorithm_duration_seconds_count ",
    ] {
        counted(line, true).await;
    }
    world.stop().await;
    counted(gated, false).await;
}

#[tokio::test(start_paused = true)]
async fn profiles_schedule_side_by_side_and_leave_others_alone() {
    let packs = json!({"plugins": {"score": {"disabled": [{"name": "*"}],
        "enabled": [{"name": "NodeResourcesFit"}]}}, "schedulerName": "packs", "pluginConfig": [
        {"name": "NodeResourcesFit", "args": {"scoringStrategy": {"type": "MostAllocated"}}}]});
    let config = config(json!({"profiles": [{"schedulerName": "default-scheduler"}, packs]}));
    let world = World::with(Setup { config, ..Setup::default() });
    world.node("a", json!({})).await;
    world.node("b", json!({})).await;
    let there = json!({"metadata": {"name": "there", "namespace": "n"}, "spec": {"nodeName": "a",
        "containers": [{"name": "c", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]}});
    world.create::<Pod>("n", there).await;
    let by = |name: &str| json!({"spec": {"schedulerName": name}});
    world.pod("spread", "1", by("default-scheduler")).await;
    assert_eq!(world.bound("spread").await, "b");
    world.pod("other", "1", by("somebody-else")).await;
    world.pod("packed", "1", by("packs")).await;
    assert_eq!(world.bound("packed").await, "a");
    let events = world
        .until::<Event>(|all| {
            all.iter().filter(|e| e.reason.as_deref() == Some("Scheduled")).count() == 2
        })
        .await;
    let sources: Vec<_> = events.iter().filter_map(|e| e.reporting_component.clone()).collect();
    assert!(sources.contains(&"packs".to_owned()), "{sources:?}");
    let pods: Informer<Pod> = world.informers.of();
    assert_eq!(node_of(&pods.list(), "other"), None);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_for_its_volume_to_be_provisioned_for_its_node() {
    let world = World::start();
    let class = json!({"metadata": {"name": "wait"}, "provisioner": "x",
        "volumeBindingMode": "WaitForFirstConsumer"});
    world.create::<StorageClass>("", class).await;
    world.node("a", json!({})).await;
    let uses = json!({"spec": {"volumes": [
        {"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}});
    world.pod("p", "1", uses).await;
    let (_, message) = world.refused("p").await;
    assert_eq!(
        message,
        "0/1 nodes are available: persistentvolumeclaim \"c\" not found. not found"
    );
    let claim = json!({"metadata": {"name": "c", "namespace": "n"}, "spec": {
        "storageClassName": "wait", "resources": {"requests": {"storage": "1Gi"}}}});
    world.create::<PersistentVolumeClaim>("n", claim).await;
    let selected = |c: &Arc<PersistentVolumeClaim>| {
        let annotations = c.metadata.annotations.as_ref();
        annotations.and_then(|a| a.get("volume.kubernetes.io/selected-node")).cloned()
    };
    let claims = world
        .until::<PersistentVolumeClaim>(|claims| claims.iter().any(|c| selected(c).is_some()))
        .await;
    assert_eq!(selected(&claims[0]).as_deref(), Some("a"));
    let pods: Informer<Pod> = world.informers.of();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(node_of(&pods.list(), "p"), None, "it waits for the volume controller");
    let volume = json!({"metadata": {"name": "v"}, "spec": {"claimRef": {"name": "c",
        "namespace": "n"}}});
    world.create::<PersistentVolume>("", volume).await;
    let bound = json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
        "spec": {"volumeName": "v"}});
    world.patch::<PersistentVolumeClaim>("n", "c", bound).await;
    assert_eq!(world.bound("p").await, "a");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_waiting_pod_that_is_deleted_gives_its_room_back() {
    let world = World::start();
    let class = json!({"metadata": {"name": "wait"}, "provisioner": "x",
        "volumeBindingMode": "WaitForFirstConsumer"});
    world.create::<StorageClass>("", class).await;
    world.node("a", json!({})).await;
    let claim = json!({"metadata": {"name": "c", "namespace": "n"}, "spec": {
        "storageClassName": "wait"}});
    world.create::<PersistentVolumeClaim>("n", claim).await;
    let uses = json!({"spec": {"volumes": [
        {"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}});
    world.pod("waits", "3", uses).await;
    world
        .until::<PersistentVolumeClaim>(|all| all.iter().any(|c| c.metadata.annotations.is_some()))
        .await;
    world.pod("p", "3", json!({})).await;
    let (_, message) = world.refused("p").await;
    assert!(message.contains("1 Insufficient cpu"), "{message}");
    world.client.delete::<Pod>("n", "waits", &DeleteParams::default()).await.unwrap();
    assert_eq!(world.bound("p").await, "a");
    world.stop().await;
}

/// Answers as it is told, and remembers what it was asked.
#[derive(Debug, Default)]
struct FakeExtender {
    asked: Mutex<Vec<(String, Value)>>,
    fails: bool,
}

impl ExtenderTransport for FakeExtender {
    fn post(&self, verb: &str, body: Vec<u8>) -> client::BoxFuture<'_, Result<Vec<u8>, String>> {
        let body: Value = serde_json::from_slice(&body).unwrap();
        self.asked.lock().unwrap().push((verb.to_owned(), body.clone()));
        let answer = match verb {
            _ if self.fails => Err("out of order".to_owned()),
            "filter" => {
                let all = body["nodenames"].as_array().unwrap();
                let kept: Vec<&Value> = all.iter().filter(|n| **n != "c").collect();
                Ok(json!({"nodenames": kept, "failedNodes": {"c": "not this one"}}))
            }
            "prioritize" => Ok(json!([{"host": "a", "score": 0}, {"host": "b", "score": 10}])),
            "bind" => Ok(json!({"error": ""})),
            verb => panic!("{verb}"),
        };
        Box::pin(async move { answer.map(|a: Value| a.to_string().into_bytes()) })
    }
}

fn extended(extra: Value) -> Config {
    let mut extender = json!({"urlPrefix": "http://e", "filterVerb": "filter",
        "prioritizeVerb": "prioritize", "weight": 100, "nodeCacheCapable": true});
    merge(&mut extender, &extra);
    config(json!({"extenders": [extender]}))
}

#[tokio::test(start_paused = true)]
async fn extenders_filter_score_and_bind() {
    let extender = Arc::new(FakeExtender::default());
    let setup = Setup {
        config: extended(json!({"bindVerb": "bind"})),
        client: None,
        extenders: vec![extender.clone()],
    };
    let world = World::with(setup);
    for name in ["a", "b", "c"] {
        world.node(name, json!({})).await;
    }
    world.pod("p", "1", json!({})).await;
    let told = |e: &Arc<Event>| e.message.as_deref() == Some("Successfully assigned n/p to b");
    world.until::<Event>(|events| events.iter().any(told)).await;
    let asked = extender.asked.lock().unwrap().clone();
    let verbs: Vec<&str> = asked.iter().map(|(verb, _)| verb.as_str()).collect();
    assert_eq!(verbs, ["filter", "prioritize", "bind"]);
    assert_eq!(asked[2].1["node"], "b");
    assert_eq!(asked[2].1["podName"], "p");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_extender_that_fails_stops_its_pods_unless_it_may_be_ignored() {
    for ignorable in [false, true] {
        let setup = Setup {
            config: extended(json!({"ignorable": ignorable})),
            client: None,
            extenders: vec![Arc::new(FakeExtender { fails: true, ..FakeExtender::default() })],
        };
        let world = World::with(setup);
        world.node("a", json!({})).await;
        world.pod("p", "1", json!({})).await;
        match ignorable {
            true => assert_eq!(world.bound("p").await, "a"),
            false => {
                let told = world.refused("p").await;
                assert_eq!(told, ("SchedulerError".into(), "out of order".into()));
            }
        }
        world.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_extender_without_a_transport_is_refused() {
    let setup = Setup { config: extended(json!({})), ..Setup::default() };
    let tasks = Tasks::new();
    let informers = Informers::new(Client::new(Arc::new(Fake::default())), tasks.clone());
    let told = setup.start(&informers, &tasks).unwrap_err();
    assert!(told.starts_with("couldn't build extenders"), "{told}");
}
