//! Pods from creation to their end.

use std::sync::Arc;

use client::{Client, Tasks};
use kubelet::{Deps, Kubelet, KubeletConfig, PlainDialer, SystemMasters};
use serde_json::{Value, json};

use crate::api::FakeApi;
use crate::fake_runtime::{FakeImages, FakeRuntime};

pub(crate) struct Node {
    pub(crate) api: FakeApi,
    pub(crate) runtime: Arc<FakeRuntime>,
    pub(crate) images: Arc<FakeImages>,
    pub(crate) tasks: Tasks,
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) const POD: &str = "/api/v1/namespaces/default/pods/web";

impl Node {
    pub(crate) fn start() -> Node {
        Node::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut KubeletConfig)) -> Node {
        let (api, runtime) = (FakeApi::new(), FakeRuntime::new());
        let dir = tempfile::tempdir().unwrap();
        let images = Arc::default();
        let node = Node { api, runtime, images, tasks: Tasks::new(), dir };
        let mut config = node.config();
        change(&mut config);
        node.run(&node.tasks, config);
        node
    }

    pub(crate) fn config(&self) -> KubeletConfig {
        let mut config = KubeletConfig::new("n1");
        config.root_dir = self.dir.path().join("kubelet");
        config.log_dir = self.dir.path().join("logs");
        config.node_ips = vec!["10.0.0.1".parse().unwrap()];
        // A machine that runs tests may well have a nearly full disk.
        config.eviction = kubelet::Thresholds::shared().into();
        config
    }

    pub(crate) fn run(&self, tasks: &Tasks, config: KubeletConfig) {
        let kubelet = self.agent(tasks, config).unwrap();
        tasks.spawn("kubelet", async move { kubelet.run().await });
    }

    pub(crate) fn agent(&self, tasks: &Tasks, config: KubeletConfig) -> Result<Kubelet, String> {
        let deps = Deps {
            client: Client::new(Arc::new(self.api.clone())),
            runtime: self.runtime.clone(),
            images: self.images.clone(),
            dialer: Arc::new(PlainDialer),
            authorizer: Arc::new(SystemMasters),
            services: None,
        };
        Kubelet::new(config, deps, tasks)
    }

    pub(crate) fn create(&self, spec: Value) {
        let mut spec = spec;
        spec["nodeName"] = json!("n1");
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default", "uid": "u1", "generation": 1, "labels": {"a": "b"}}, "spec": spec});
        self.api.put(POD, pod);
    }

    /// Changes the pod as a user would.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Value)) {
        self.api.update(POD, change).unwrap();
    }

    /// A pod of its own, beside the one of [`Node::create`].
    pub(crate) fn put(&self, name: &str, spec: Value) {
        let mut spec = spec;
        spec["nodeName"] = json!("n1");
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "uid": name, "generation": 1}, "spec": spec});
        self.api.put(&format!("/api/v1/namespaces/default/pods/{name}"), pod);
    }

    pub(crate) fn delete(&self, grace: i64) {
        self.change(|pod| {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        });
    }

    pub(crate) async fn status(&self, is: impl Fn(&Value) -> bool) -> Value {
        self.api.until(|api| api.get(POD).map(|p| p["status"].clone()).filter(|s| is(s))).await
    }

    pub(crate) async fn event(&self, reason: &str) -> Value {
        let prefix = "/api/v1/namespaces/default/events/";
        let found = |api: &FakeApi| api.list(prefix).into_iter().find(|e| e["reason"] == reason);
        self.api.until(found).await
    }
}

pub(crate) fn one(container: Value) -> Value {
    let mut c = json!({"name": "c", "image": "demo:v1"});
    for (k, v) in container.as_object().unwrap() {
        c[k] = v.clone();
    }
    json!({"containers": [c]})
}

#[tokio::test]
async fn a_pod_runs_restarts_and_is_deleted() {
    let node = Node::start();
    node.api.put("/api/v1/namespaces/default/configmaps/cm", json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm", "namespace": "default"}, "data": {"k": "v1"}}));
    let mut spec = one(
        json!({"env": [{"name": "K", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}, {"name": "L", "value": "$(K)-$$(K)"}], "volumeMounts": [{"name": "cm", "mountPath": "/cm"}]}),
    );
    spec["volumes"] =
        json!([{"name": "cm", "configMap": {"name": "cm"}}, {"name": "e", "emptyDir": {}}]);
    node.create(spec);
    let status = node.status(|s| s["phase"] == "Running").await;
    assert_eq!(status["podIP"], "127.0.0.1");
    assert_eq!(status["hostIP"], "10.0.0.1");
    assert_eq!(status["qosClass"], "BestEffort");
    assert_eq!(status["containerStatuses"][0]["ready"], true);
    let ready = status["conditions"].as_array().unwrap().iter().filter(|c| c["status"] == "True");
    assert_eq!(ready.count(), 5);
    {
        let table = node.runtime.table.lock().unwrap();
        let (_, config, _) = table.containers.values().next().unwrap();
        let value = |k: &str| config.envs.iter().find(|e| e.key == k).map(|e| e.value.clone());
        assert_eq!(value("K").unwrap(), b"v1");
        assert_eq!(value("L").unwrap(), b"v1-$(K)");
    }
    let file = node.dir.path().join("kubelet/pods/u1/volumes/kubernetes.io~configmap/cm/k");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "v1");

    // The first restart is at once; the second waits.
    node.runtime.exit("c", 1);
    let status = node
        .status(|s| {
            s["containerStatuses"][0]["restartCount"] == 1
                && s["containerStatuses"][0]["state"]["running"].is_object()
        })
        .await;
    assert_eq!(status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 1);
    node.runtime.exit("c", 2);
    let status = node
        .status(|s| s["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff")
        .await;
    assert_eq!(status["phase"], "Running");
    assert_eq!(
        status["containerStatuses"][0]["state"]["waiting"]["message"],
        "back-off 10s restarting failed container=c pod=web_default(u1)"
    );
    node.event("BackOff").await;

    let mut pod = node.api.get(POD).unwrap();
    pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    pod["metadata"]["deletionGracePeriodSeconds"] = json!(1);
    node.api.put(POD, pod);
    node.api.until(|api| api.get(POD).is_none().then_some(())).await;
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn init_containers_run_in_order_and_a_job_completes() {
    let node = Node::start();
    let mut spec = one(json!({}));
    spec["restartPolicy"] = json!("Never");
    spec["initContainers"] = json!([{"name": "i1", "image": "demo:v1"}, {"name": "side", "image": "demo:v1", "restartPolicy": "Always"}]);
    node.create(spec);
    let status =
        node.status(|s| s["initContainerStatuses"][0]["state"]["running"].is_object()).await;
    assert_eq!(status["phase"], "Pending");
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
    node.runtime.exit("i1", 0);
    let status = node.status(|s| s["phase"] == "Running").await;
    assert_eq!(status["initContainerStatuses"][1]["started"], true);
    node.runtime.exit("c", 0);
    let status = node.status(|s| s["phase"] == "Succeeded").await;
    assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn a_missing_image_is_told_and_retried_with_back_off() {
    let node = Node::start();
    node.create(one(json!({"image": "missing/it"})));
    let waiting = |s: &Value| s["containerStatuses"][0]["state"]["waiting"]["reason"].clone();
    node.status(|s| waiting(s) == "ErrImagePull").await;
    let status = node.status(|s| waiting(s) == "ImagePullBackOff").await;
    let message = &status["containerStatuses"][0]["state"]["waiting"]["message"];
    assert!(
        message
            .as_str()
            .unwrap()
            .starts_with("Back-off pulling image \"missing/it\": ErrImagePull: ")
    );
    node.event("Pulling").await;
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn an_absent_config_map_holds_the_container_until_it_comes() {
    let node = Node::start();
    node.create(one(json!({"envFrom": [{"configMapRef": {"name": "late"}}]})));
    let status = node
        .status(|s| {
            s["containerStatuses"][0]["state"]["waiting"]["reason"] == "CreateContainerConfigError"
        })
        .await;
    assert_eq!(
        status["containerStatuses"][0]["state"]["waiting"]["message"],
        "configmap \"late\" not found"
    );
    node.api.put("/api/v1/namespaces/default/configmaps/late", json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late", "namespace": "default"}, "data": {"k": "v"}}));
    node.status(|s| s["phase"] == "Running").await;
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn a_new_agent_adopts_what_runs() {
    let node = Node::start();
    node.create(one(json!({})));
    node.status(|s| s["phase"] == "Running").await;
    node.tasks.shutdown().await;
    let before: Vec<String> =
        node.runtime.table.lock().unwrap().containers.keys().cloned().collect();
    let again = Tasks::new();
    node.run(&again, node.config());
    node.runtime.exit("c", 1);
    let status = node.status(|s| s["containerStatuses"][0]["restartCount"] == 1).await;
    assert!(
        status["containerStatuses"][0]["lastState"]["terminated"]["containerID"]
            .as_str()
            .unwrap()
            .ends_with(&before[0])
    );
    again.shutdown().await;
}

#[tokio::test]
async fn the_node_registers_and_holds_its_lease() {
    let node = Node::start();
    let path = "/api/v1/nodes/n1";
    let ready = |api: &FakeApi| {
        let node = api.get(path)?;
        let all = node["status"]["conditions"].as_array()?.clone();
        all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True").then_some(node)
    };
    let object = node.api.until(ready).await;
    assert_eq!(object["metadata"]["labels"]["kubernetes.io/hostname"], "n1");
    assert_eq!(object["status"]["nodeInfo"]["kubeletVersion"], "v1.36.2");
    assert_eq!(object["status"]["nodeInfo"]["containerRuntimeVersion"], "trireme://test");
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1";
    let held = node.api.until(|api| api.get(lease)).await;
    assert_eq!(held["spec"]["holderIdentity"], "n1");
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn a_log_that_is_too_long_is_put_aside() {
    let node = Node::with(|config| {
        config.upkeep_interval = std::time::Duration::from_millis(5);
        config.log_max_bytes = 10;
    });
    node.create(one(json!({})));
    node.status(|s| s["phase"] == "Running").await;
    let dir = node.dir.path().join("logs/default_web_u1/c");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("0.log"), "longer than ten bytes").unwrap();
    node.runtime.reopened.notified().await;
    let names: Vec<String> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.len() == 1 && names[0].starts_with("0.log.20"), "{names:?}");
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn a_node_without_room_ends_a_pod() {
    let node = Node::with(|config| {
        config.upkeep_interval = std::time::Duration::from_millis(5);
        // Some of every disk is in use.
        let all = kubelet::Amount::Percent(100.0);
        config.eviction.hard.set(kubelet::Signal::NodefsAvailable, all);
    });
    // A new pod would not be taken; this one was before.
    let mut spec = one(json!({}));
    spec["nodeName"] = json!("n1");
    let taken = json!({"phase": "Pending", "startTime": "2026-01-01T00:00:00Z"});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default", "uid": "u1"}, "spec": spec, "status": taken});
    node.api.put(POD, pod);
    let status = node.status(|s| s["phase"] == "Failed").await;
    assert_eq!(status["reason"], "Evicted");
    let message = status["message"].as_str().unwrap();
    assert!(message.starts_with("The node was low on resource: ephemeral-storage."), "{message}");
    let conditions = status["conditions"].as_array().unwrap();
    let target = conditions.iter().find(|c| c["type"] == "DisruptionTarget").unwrap();
    assert_eq!(target["reason"], "TerminationByKubelet");
    node.event("Evicted").await;
    node.event("EvictionThresholdMet").await;
    let node_object = node.api.get("/api/v1/nodes/n1").unwrap();
    let pressure = node_object["status"]["conditions"].as_array().unwrap();
    let pressure = pressure.iter().find(|c| c["type"] == "DiskPressure").unwrap();
    assert_eq!(pressure["status"], "True");
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn a_deadline_that_is_set_later_ends_the_pod() {
    let node = Node::start();
    node.create(one(json!({})));
    node.status(|s| s["phase"] == "Running").await;
    let mut pod = node.api.get(POD).unwrap();
    pod["spec"]["activeDeadlineSeconds"] = json!(1);
    node.api.put(POD, pod);
    let status = node.status(|s| s["phase"] == "Failed").await;
    assert_eq!(status["reason"], "DeadlineExceeded");
    node.tasks.shutdown().await;
}
