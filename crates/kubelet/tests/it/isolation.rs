//! Isolation that a pod asks for is handed to the runtime, or the pod fails by name; commands of the
//! kubelet's own always end.

use serde_json::json;

use crate::lifecycle::{Node, POD, one};

/// One range of ids, not the host's own, and the same for sandbox, container and mounts.
fn check_users(node: &Node) {
    let table = node.runtime.table.lock().unwrap();
    let (sandbox, _) = table.sandboxes.values().next().unwrap();
    let context = sandbox.linux.as_ref().unwrap().security_context.as_ref().unwrap();
    let users = context.namespace_options.as_ref().unwrap().userns_options.clone().unwrap();
    let [ids] = users.uids.as_slice() else { panic!("{users:?}") };
    assert_eq!((ids.container_id, ids.length, ids.host_id % 65536), (0, 65536, 0));
    assert!(ids.host_id > 0 && users.uids == users.gids);
    let (_, container, _) = table.containers.values().next().unwrap();
    let inner = container.linux.as_ref().unwrap().security_context.as_ref().unwrap();
    let same = inner.namespace_options.as_ref().unwrap().userns_options.as_ref();
    assert_eq!(same, Some(&users));
    assert!(
        container
            .mounts
            .iter()
            .all(|m| m.uid_mappings == users.uids && m.gid_mappings == users.gids)
    );
}

#[tokio::test]
async fn a_user_namespace_is_the_pods_own_or_refused() {
    let node = Node::start();
    let mut spec = one(json!({}));
    spec["hostUsers"] = json!(false);
    node.create(spec.clone());
    let event = node.event("FailedCreatePodSandBox").await;
    assert_eq!(
        event["message"],
        "Failed to create pod sandbox: can't set `spec.hostUsers: false`, runtime does not support user namespaces"
    );
    assert!(node.runtime.table.lock().unwrap().sandboxes.is_empty());
    // It waits, and runs once the runtime can.
    node.runtime.features.lock().unwrap().user_namespaces = true;
    node.status(|s| s["phase"] == "Running").await;
    check_users(&node);
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn a_runtime_class_names_a_handler_that_exists_or_the_pod_waits() {
    let node = Node::start();
    let mut spec = one(json!({}));
    spec["runtimeClassName"] = json!("sandboxed");
    node.create(spec);
    let event = node.event("FailedCreatePodSandBox").await;
    let missing = "Failed to create pod sandbox: runtimeclass.node.k8s.io \"sandboxed\" not found";
    assert_eq!(event["message"], missing);
    let class = |handler: &str| json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "sandboxed"}, "handler": handler});
    let path = "/apis/node.k8s.io/v1/runtimeclasses/sandboxed";
    node.api.put(path, class("runsc"));
    let prefix = "/api/v1/namespaces/default/events/";
    let said =
        "Failed to create pod sandbox: invalid argument: no runtime for \"runsc\" is configured";
    let told =
        |api: &crate::api::FakeApi| api.list(prefix).into_iter().find(|e| e["message"] == said);
    node.api.until(told).await;
    node.api.put(path, class(""));
    node.status(|s| s["phase"] == "Running").await;
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn a_probe_that_hangs_runs_once_at_a_time_and_has_a_deadline() {
    let node = Node::start();
    let probe =
        json!({"exec": {"command": ["hang", "$(ME)"]}, "timeoutSeconds": 3, "periodSeconds": 1});
    node.create(one(json!({"livenessProbe": probe, "env": [{"name": "ME", "value": "x"}]})));
    node.status(|s| s["phase"] == "Running").await;
    node.runtime.out_of_time.notify_one();
    let event = node.event("Unhealthy").await;
    assert_eq!(
        event["message"],
        "Liveness probe failed: command timed out: \"hang x\" timed out after 3s"
    );
    assert_eq!(*node.runtime.commands.lock().unwrap(), [("hang x".to_owned(), 3)]);
    // The pod ends while its next probe is under way: the call is given up, which ends the command.
    let mut under_way = node.runtime.under_way.subscribe();
    under_way.wait_for(|(now, _)| *now == 1).await.unwrap();
    let mut pod = node.api.get(POD).unwrap();
    pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    node.api.put(POD, pod);
    node.api.until(|api| api.get(POD).is_none().then_some(())).await;
    let (_, most) = *under_way.wait_for(|(now, _)| *now == 0).await.unwrap();
    assert_eq!(most, 1, "one at a time");
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn hooks_have_deadlines() {
    let node = Node::start();
    let hook = |command: &str| json!({"exec": {"command": [command]}});
    let lifecycle = json!({"postStart": hook("after"), "preStop": hook("before")});
    let mut spec = one(json!({"lifecycle": lifecycle}));
    spec["terminationGracePeriodSeconds"] = json!(7);
    node.create(spec);
    node.status(|s| s["phase"] == "Running").await;
    let mut pod = node.api.get(POD).unwrap();
    pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    pod["metadata"]["deletionGracePeriodSeconds"] = json!(7);
    node.api.put(POD, pod);
    node.api.until(|api| api.get(POD).is_none().then_some(())).await;
    let commands = node.runtime.commands.lock().unwrap().clone();
    assert_eq!(commands, [("after".to_owned(), 24 * 3600), ("before".to_owned(), 7)]);
    node.tasks.shutdown().await;
}
