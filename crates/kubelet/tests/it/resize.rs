//! Resources that change while a pod runs.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::lifecycle::{Node, POD, one};

fn resources(cpu: &str, memory: &str) -> Value {
    json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}})
}

async fn running(container: Value) -> Node {
    let node = Node::start();
    node.create(one(container));
    node.status(|s| s["phase"] == "Running").await;
    node
}

fn resize(node: &Node, to: &Value, generation: i64) {
    node.change(|pod| {
        pod["spec"]["containers"][0]["resources"] = to.clone();
        pod["metadata"]["generation"] = json!(generation);
    });
}

fn condition(status: &Value, name: &str) -> Option<Value> {
    status["conditions"].as_array()?.iter().find(|c| c["type"] == name).cloned()
}

fn is(status: &Value, resources: &Value) -> bool {
    status["containerStatuses"][0]["resources"] == *resources
        && condition(status, "PodResizeInProgress").is_none()
}

#[tokio::test]
async fn cgroups_follow_the_spec_without_a_restart() {
    let node = running(json!({"resources": resources("100m", "64Mi")})).await;
    let larger = resources("200m", "128Mi");
    resize(&node, &larger, 2);
    let status = node.status(|s| is(s, &larger)).await;
    assert_eq!(status["containerStatuses"][0]["restartCount"], 0);
    assert_eq!(status["containerStatuses"][0]["allocatedResources"], larger["requests"]);
    let grown = [
        "pod memory=134217728",
        "c memory=134217728",
        "pod cpu=0/20000",
        "pod cpu=204/0",
        "c cpu=204/20000",
    ];
    assert_eq!(*node.runtime.updates.lock().unwrap(), grown, "the pod before its container");
    let started = node.event("ResizeStarted").await;
    let said = format!(
        r#"Pod resize started: {{"containers":[{{"name":"c","resources":{larger}}}],"generation":2}}"#
    );
    assert_eq!(started["message"], said.as_str());
    node.event("ResizeCompleted").await;
    node.runtime.updates.lock().unwrap().clear();
    let smaller = resources("100m", "64Mi");
    resize(&node, &smaller, 3);
    node.status(|s| is(s, &smaller)).await;
    let shrunk = [
        "c memory=67108864",
        "pod memory=67108864",
        "c cpu=102/10000",
        "pod cpu=102/0",
        "pod cpu=0/10000",
    ];
    assert_eq!(*node.runtime.updates.lock().unwrap(), shrunk, "the container before its pod");
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn a_policy_may_want_a_new_start() {
    let policy = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}, {"resourceName": "cpu", "restartPolicy": "NotRequired"}]);
    let node =
        running(json!({"resources": resources("100m", "64Mi"), "resizePolicy": policy})).await;
    let cpu = resources("200m", "64Mi");
    resize(&node, &cpu, 2);
    let status = node.status(|s| is(s, &cpu)).await;
    assert_eq!(status["containerStatuses"][0]["restartCount"], 0);
    let memory = resources("200m", "128Mi");
    resize(&node, &memory, 3);
    let status = node
        .status(|s| is(s, &memory) && s["containerStatuses"][0]["state"]["running"].is_object())
        .await;
    assert_eq!(status["containerStatuses"][0]["restartCount"], 1);
    let prefix = "/api/v1/namespaces/default/events/";
    let killed = "Container c resize requires restart";
    let told = |api: &crate::api::FakeApi| {
        api.list(prefix).into_iter().find(|e| e["reason"] == "Killing" && e["message"] == killed)
    };
    node.api.until(told).await;
    {
        let table = node.runtime.table.lock().unwrap();
        let newest = table.containers.values().next_back().unwrap();
        let limit = newest.1.linux.as_ref().unwrap().resources.as_ref().unwrap();
        assert_eq!(limit.memory_limit_in_bytes, 128 << 20);
    }
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn a_change_without_room_waits_and_the_pod_keeps_what_it_has() {
    let node = running(json!({"resources": resources("100m", "64Mi")})).await;
    let before = resources("100m", "64Mi");
    resize(&node, &resources("9000", "64Mi"), 2);
    let pending = |s: &Value| condition(s, "PodResizePending").is_some();
    let status = node.status(pending).await;
    let condition = condition(&status, "PodResizePending").unwrap();
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("True"), &json!("Deferred")));
    assert_eq!(condition["observedGeneration"], 2);
    let message = condition["message"].as_str().unwrap();
    let said = "Node didn't have enough resource: cpu, requested: 9000000, used: 0, capacity: ";
    assert!(message.starts_with(said), "{message}");
    assert_eq!(status["containerStatuses"][0]["allocatedResources"], before["requests"]);
    assert!(node.runtime.updates.lock().unwrap().is_empty());
    assert_eq!(node.event("ResizeDeferred").await["type"], "Warning");
    // The wish is taken back.
    resize(&node, &before, 3);
    node.status(|s| !pending(s)).await;
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn a_limit_below_what_is_used_is_an_error_that_is_told() {
    let node = running(json!({"resources": resources("100m", "64Mi")})).await;
    node.runtime.memory_used.store(50 << 20, Ordering::Relaxed);
    resize(&node, &resources("100m", "32Mi"), 2);
    let failed =
        |s: &Value| condition(s, "PodResizeInProgress").is_some_and(|c| c["reason"] == "Error");
    let status = node.status(failed).await;
    let message = condition(&status, "PodResizeInProgress").unwrap()["message"].clone();
    let said = "cannot decrease memory limits: [attempting to set pod memory limit (33554432) below current usage (52428800), attempting to set container \"c\" memory limit (33554432) below current usage (52428800)]";
    assert_eq!(message, said);
    node.event("ResizeError").await;
    assert_eq!(status["containerStatuses"][0]["resources"], resources("100m", "64Mi"));
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn what_was_given_outlives_the_agent() {
    let node = running(json!({"resources": resources("100m", "64Mi")})).await;
    resize(&node, &resources("9000", "64Mi"), 2);
    node.status(|s| condition(s, "PodResizePending").is_some()).await;
    node.tasks.shutdown().await;
    let again = client::Tasks::new();
    node.run(&again, node.config());
    // A sign that the new agent has looked: it restarts what ended.
    node.runtime.exit("c", 1);
    let status = node.status(|s| s["containerStatuses"][0]["restartCount"] == 1).await;
    let pending = condition(&status, "PodResizePending").expect("it is still without room");
    assert_eq!(pending["reason"], "Deferred");
    {
        let table = node.runtime.table.lock().unwrap();
        let newest = table.containers.values().next_back().unwrap();
        let linux = newest.1.linux.as_ref().unwrap().resources.as_ref().unwrap();
        assert_eq!((linux.cpu_shares, linux.cpu_quota), (102, 10_000));
    }
    assert!(node.api.get(POD).is_some());
    again.shutdown().await;
}
