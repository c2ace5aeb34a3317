//! Ends of containers and pods: one grace period for all, sidecars last, and pods that begin anew.

use serde_json::{Value, json};

use crate::lifecycle::{Node, POD, one};

#[tokio::test]
async fn sidecars_run_their_hooks_at_once_and_end_last_within_one_grace_period() {
    let node = Node::start();
    let hook = json!({"preStop": {"exec": {"command": ["echo", "bye"]}}});
    let side = |name: &str| json!({"name": name, "image": "demo:v1", "restartPolicy": "Always", "lifecycle": hook});
    let mut spec = one(json!({"name": "slow"}));
    spec["initContainers"] = json!([side("first"), side("second")]);
    node.create(spec);
    node.status(|s| s["phase"] == "Running").await;
    node.delete(30);
    // The sidecars' hooks have run while the regular container still does.
    let mut commands = node.runtime.under_way.subscribe();
    while node.runtime.commands.lock().unwrap().len() < 2 {
        commands.changed().await.unwrap();
    }
    while node.runtime.stops.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let names = || -> Vec<String> {
        node.runtime.stops.lock().unwrap().iter().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names(), ["slow"]);
    node.runtime.let_end.notify_one();
    node.api.until(|api| api.get(POD).is_none().then_some(())).await;
    assert_eq!(names(), ["slow", "second", "first"]);
    let stops = node.runtime.stops.lock().unwrap().clone();
    assert!(stops.iter().all(|(_, grace)| (2..=30).contains(grace)), "{stops:?}");
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn a_shorter_grace_period_later_hurries_what_waits() {
    let node = Node::start();
    let mut spec = one(json!({"name": "slow"}));
    spec["initContainers"] =
        json!([{"name": "side", "image": "demo:v1", "restartPolicy": "Always"}]);
    node.create(spec);
    node.status(|s| s["phase"] == "Running").await;
    node.delete(600);
    while node.runtime.stops.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    // The regular container never ends by itself; a second later the sidecar is told all the same.
    node.delete(1);
    while !node.runtime.stops.lock().unwrap().iter().any(|(name, _)| name == "side") {
        tokio::task::yield_now().await;
    }
    node.runtime.let_end.notify_one();
    node.runtime.let_end.notify_one();
    node.api.until(|api| api.get(POD).is_none().then_some(())).await;
    node.tasks.shutdown().await;
}

fn rules(action: &str, code: i32) -> Value {
    json!([{"action": action, "exitCodes": {"operator": "In", "values": [code]}}])
}

#[tokio::test]
async fn a_rule_restarts_one_container_and_others_end_the_pod() {
    let node = Node::start();
    let mut spec =
        one(json!({"restartPolicy": "Never", "restartPolicyRules": rules("Restart", 42)}));
    spec["restartPolicy"] = json!("Never");
    node.create(spec);
    node.status(|s| s["phase"] == "Running").await;
    node.runtime.exit("c", 42);
    let status = node
        .status(|s| {
            let c = &s["containerStatuses"][0];
            c["restartCount"] == 1 && c["state"]["running"].is_object()
        })
        .await;
    assert_eq!(status["phase"], "Running");
    node.runtime.exit("c", 3);
    let status = node.status(|s| s["phase"] == "Failed").await;
    assert_eq!(status["containerStatuses"][0]["restartCount"], 1);
    node.tasks.shutdown().await;
}

fn condition(status: &Value, name: &str) -> Value {
    let all = status["conditions"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|c| c["type"] == name).unwrap_or_default()
}

#[tokio::test]
async fn a_rule_begins_the_whole_pod_anew() {
    let node = Node::start();
    let watcher = json!({"name": "watcher", "image": "demo:v1", "restartPolicy": "Never", "restartPolicyRules": rules("RestartAllContainers", 88)});
    let mut spec = one(json!({}));
    spec["containers"].as_array_mut().unwrap().push(watcher);
    spec["initContainers"] = json!([{"name": "setup", "image": "demo:v1"}]);
    node.create(spec);
    node.status(|s| s["initContainerStatuses"][0]["state"]["running"].is_object()).await;
    node.runtime.exit("setup", 0);
    let status = node.status(|s| s["phase"] == "Running").await;
    assert_eq!(condition(&status, "AllContainersRestarting")["status"], "False");
    let sandboxes =
        node.runtime.table.lock().unwrap().sandboxes.keys().cloned().collect::<Vec<_>>();
    node.runtime.exit("watcher", 88);
    // The init container runs again, first of all.
    let status = node
        .status(|s| {
            let init = &s["initContainerStatuses"][0];
            init["state"]["running"].is_object() && init["restartCount"] == 1
        })
        .await;
    let main = &status["containerStatuses"][0];
    assert_eq!(main["state"]["waiting"]["reason"], "RestartingAllContainers", "{main}");
    assert_eq!(main["lastState"]["terminated"]["exitCode"], 137);
    assert_eq!(condition(&status, "Initialized")["status"], "True");
    node.runtime.exit("setup", 0);
    let running = |s: &Value| {
        let all = s["containerStatuses"].as_array().unwrap();
        all.iter().all(|c| c["state"]["running"].is_object() && c["restartCount"] == 1)
    };
    let status = node.status(running).await;
    assert_eq!(condition(&status, "AllContainersRestarting")["status"], "False");
    assert_eq!(status["phase"], "Running");
    let after = node.runtime.table.lock().unwrap().sandboxes.keys().cloned().collect::<Vec<_>>();
    assert_eq!(sandboxes, after, "the sandbox stays");
    node.tasks.shutdown().await;
}
