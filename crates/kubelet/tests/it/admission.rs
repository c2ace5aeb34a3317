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
        config.eviction.disk = kubelet::Amount::Percent(100.0);
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
