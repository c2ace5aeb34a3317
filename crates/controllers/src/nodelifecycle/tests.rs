//! Conditions and taints of nodes that fall silent or are not ready.

use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::plan::{evicts_newly, readiness, region_and_zone, silenced, taints};
use crate::meta::now;

fn node(ready: &str, taints: Value) -> Node {
    serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": {"taints": taints},
        "status": {"conditions": [{"type": "Ready", "status": ready}]}}))
    .unwrap()
}

fn keys(node: &Node) -> Option<Vec<(String, String)>> {
    Some(taints(node, &now())?.into_iter().map(|t| (t.key, t.effect)).collect())
}

fn pair(key: &str, effect: &str) -> (String, String) {
    (key.into(), effect.into())
}

#[test]
fn a_silent_node_is_unknown_and_unreachable() {
    let silent = silenced(&node("True", json!([])), &now()).unwrap();
    assert_eq!(readiness(&silent), "Unknown");
    assert_eq!(silenced(&silent, &now()), None);
    let key = "node.kubernetes.io/unreachable";
    assert_eq!(keys(&silent).unwrap(), [pair(key, "NoSchedule"), pair(key, "NoExecute")]);
}

#[test]
fn a_ready_node_keeps_only_the_taints_of_others() {
    let both = json!([{"key": "mine", "effect": "NoSchedule"},
        {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]);
    assert_eq!(keys(&node("True", both)).unwrap(), [pair("mine", "NoSchedule")]);
    assert_eq!(keys(&node("True", json!([{"key": "mine", "effect": "NoSchedule"}]))), None);
}

#[test]
fn a_node_is_evicted_once_for_being_not_ready() {
    let before = node("Unknown", json!([]));
    let wanted = taints(&before, &now()).unwrap();
    assert!(evicts_newly(&before, &wanted));
    let again = json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]);
    assert!(!evicts_newly(&node("Unknown", again), &wanted));
    assert!(!evicts_newly(&before, &[]));
}

#[test]
fn old_labels_name_a_place_before_new_ones() {
    let of = |labels: Value| -> Node {
        serde_json::from_value(json!({"metadata": {"name": "n", "labels": labels}})).unwrap()
    };
    assert_eq!(region_and_zone(&of(json!({}))), ["", ""]);
    let labels = json!({"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": "z",
        "failure-domain.beta.kubernetes.io/zone": "old"});
    assert_eq!(region_and_zone(&of(labels)), ["r", "old"]);
}
