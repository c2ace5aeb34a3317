//! Verdicts on pods.

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::plan::{Verdict, verdict};

fn pod(node: &str, phase: &str, ending: bool) -> Pod {
    let at = if ending { json!("2020-01-01T00:00:00Z") } else { Value::Null };
    serde_json::from_value(json!({"metadata": {"deletionTimestamp": at},
        "spec": {"containers": [], "nodeName": node}, "status": {"phase": phase}}))
    .unwrap()
}

#[test]
fn only_what_nobody_ends_is_garbage() {
    let node = Node::default();
    let lost: Node = serde_json::from_value(json!({"metadata": {}, "spec": {"taints": [
        {"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]}}))
    .unwrap();
    let running = pod("n", "Running", false);
    assert_eq!(verdict(&running, Some(&node), false), Verdict::Keep);
    assert_eq!(verdict(&running, None, false), Verdict::Orphaned);
    assert_eq!(verdict(&pod("", "Pending", false), None, false), Verdict::Keep);
    assert_eq!(verdict(&pod("", "Pending", true), None, false), Verdict::Unscheduled);
    assert_eq!(verdict(&pod("n", "Running", true), Some(&lost), false), Verdict::OutOfService);
    assert_eq!(verdict(&pod("n", "Failed", false), Some(&node), true), Verdict::Surplus);
}
