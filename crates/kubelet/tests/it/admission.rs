//! Pods that the node does not take: they fail by name, say so in an event, and never start.

use serde_json::{Value, json};

use crate::lifecycle::{Node, POD, one};

async fn refused(node: &Node, spec: Value, reason: &str, message: &str) {
    node.create(spec);
    let status = node.status(|s| s["phase"] == "Failed").await;
    assert_eq!((&status["reason"], &status["message"]), (&json!(reason), &json!(message)));
    assert_eq!(status["qosClass"], "BestEffort");
    assert!(status["containerStatuses"].is_null(), "{status}");
    let event = node.event(reason).await;
    assert_eq!(event["type"], "Warning");
    assert_eq!(message, format!("Pod was rejected: {}", event["message"].as_str().unwrap()));
    assert!(node.runtime.table.lock().unwrap().sandboxes.is_empty(), "it never starts");
    // Its end is like any pod's.
    let mut pod = node.api.get(POD).unwrap();
    pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    node.api.put(POD, pod);
    node.api.until(|api| api.get(POD).is_none().then_some(())).await;
}

#[tokio::test]
async fn a_pod_that_does_not_match_fails_and_never_starts() {
    let node = Node::start();
    let mut spec = one(json!({}));
    spec["nodeSelector"] = json!({"disk": "ssd"});
    let said = "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
    refused(&node, spec, "NodeAffinity", said).await;
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn an_unsafe_sysctl_is_refused() {
    let node = Node::start();
    let mut spec = one(json!({}));
    spec["securityContext"] = json!({"sysctls": [{"name": "kernel.msgmax", "value": "65536"}]});
    let said = "Pod was rejected: forbidden sysctl: \"kernel.msgmax\" not allowlisted";
    refused(&node, spec, "SysctlForbidden", said).await;
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn a_node_under_pressure_takes_no_pods() {
    let node = Node::with(|config| {
        let all = kubelet::Amount::Percent(100.0);
        config.eviction.hard.set(kubelet::Signal::NodefsAvailable, all);
        config.upkeep_interval = std::time::Duration::from_secs(3600);
    });
    let said = "Pod was rejected: The node had condition: [DiskPressure]. ";
    refused(&node, one(json!({})), "Evicted", said).await;
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn a_container_that_must_not_be_root_does_not_run_an_image_without_a_user() {
    let node = Node::start();
    node.create(one(json!({"securityContext": {"runAsNonRoot": true}})));
    let waiting = |s: &Value| s["containerStatuses"][0]["state"]["waiting"].clone();
    let status = node.status(|s| waiting(s)["reason"] == "CreateContainerConfigError").await;
    assert_eq!(
        waiting(&status)["message"],
        "container has runAsNonRoot and image will run as root (pod: \"web_default(u1)\", container: c)"
    );
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn a_critical_pod_takes_the_place_of_another() {
    let node = Node::with(|config| config.max_pods = 1);
    let held = node.api.until(|api| {
        let node = api.get("/api/v1/nodes/n1")?;
        Some(node["status"]["allocatable"]["pods"].clone())
    });
    assert_eq!(held.await, "1");
    node.create(one(json!({})));
    node.status(|s| s["phase"] == "Running").await;
    node.put("more", one(json!({})));
    let of = |api: &crate::api::FakeApi, name: &str| {
        api.get(&format!("/api/v1/namespaces/default/pods/{name}")).map(|p| p["status"].clone())
    };
    let refused = node.api.until(|api| of(api, "more").filter(|s| s["phase"] == "Failed")).await;
    assert_eq!(refused["reason"], "OutOfpods");
    let mut critical = one(json!({}));
    critical["priority"] = json!(2_000_000_000);
    node.put("critical", critical);
    node.api.until(|api| of(api, "critical").filter(|s| s["phase"] == "Running")).await;
    let ended = node.status(|s| s["phase"] == "Failed").await;
    assert_eq!(ended["reason"], "Preempting");
    assert_eq!(ended["message"], "Preempted in order to admit critical pod");
    let conditions = ended["conditions"].as_array().unwrap();
    let target = conditions.iter().find(|c| c["type"] == "DisruptionTarget").unwrap();
    assert_eq!(target["message"], "Pod was preempted by Kubelet to accommodate a critical pod.");
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn a_critical_pod_waits_for_the_end_of_those_that_make_room() {
    let node = Node::with(|config| config.max_pods = 1);
    let mut spec = one(json!({}));
    spec["containers"][0]["name"] = json!("slow");
    node.create(spec);
    node.status(|s| s["phase"] == "Running").await;
    let mut critical = one(json!({}));
    critical["priority"] = json!(2_000_000_000);
    node.put("critical", critical);
    let told = || node.runtime.stops.lock().unwrap().iter().any(|(name, _)| name == "slow");
    let told = async {
        while !told() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), told).await.unwrap();
    let path = "/api/v1/namespaces/default/pods/critical";
    let sandboxes = || node.runtime.table.lock().unwrap().sandboxes.len();
    // A change of the waiting pod does not start it.
    let mut pod = node.api.get(path).unwrap();
    pod["metadata"]["labels"] = json!({"a": "b"});
    node.api.put(path, pod);
    node.put("other", one(json!({})));
    let other = "/api/v1/namespaces/default/pods/other";
    let refused = |api: &crate::api::FakeApi| {
        api.get(other).map(|p| p["status"].clone()).filter(|s| s["phase"] == "Failed")
    };
    assert_eq!(node.api.until(refused).await["reason"], "OutOfpods", "the room is given");
    assert_eq!(sandboxes(), 1, "the critical pod waits");
    let victim = node.api.get(POD).unwrap();
    assert_eq!(victim["status"]["phase"], "Running", "it has not ended yet");
    node.runtime.let_end.notify_one();
    let running = |api: &crate::api::FakeApi| {
        api.get(path).filter(|p| p["status"]["phase"] == "Running").map(drop)
    };
    node.api.until(running).await;
    assert_eq!(node.status(|s| s["phase"] == "Failed").await["reason"], "Preempting");
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn a_mirror_pod_without_its_pod_is_deleted_and_does_not_run() {
    let node = Node::start();
    let mut spec = one(json!({}));
    spec["nodeName"] = json!("n1");
    let path = "/api/v1/namespaces/default/pods/mirror";
    let meta = json!({"name": "mirror", "namespace": "default", "uid": "m", "annotations": {"kubernetes.io/config.mirror": "x"}});
    node.api.put(path, json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}));
    node.create(one(json!({})));
    node.status(|s| s["phase"] == "Running").await;
    assert_eq!(node.runtime.table.lock().unwrap().sandboxes.len(), 1);
    node.api.until(|api| api.get(path).is_none().then_some(())).await;
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn what_pods_that_are_gone_left_is_removed() {
    let node = Node::start();
    node.create(one(json!({})));
    node.status(|s| s["phase"] == "Running").await;
    node.tasks.shutdown().await;
    let left = node.dir.path().join("kubelet/pods/gone");
    let logs = node.dir.path().join("logs");
    std::fs::create_dir_all(left.join("volumes/kubernetes.io~empty-dir/v/a")).unwrap();
    std::fs::create_dir_all(logs.join("ns_p_gone/c")).unwrap();
    std::fs::create_dir_all(logs.join("default_web_u1/c")).unwrap();
    let again = client::Tasks::new();
    node.run(&again, node.config());
    while left.exists() || logs.join("ns_p_gone").exists() {
        tokio::task::yield_now().await;
    }
    assert!(node.dir.path().join("kubelet/pods/u1").exists(), "a pod that is there keeps its own");
    assert!(logs.join("default_web_u1").exists());
    again.shutdown().await;
}
