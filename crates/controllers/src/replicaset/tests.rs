//! The plan and the status of a ReplicaSet.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::plan::{Plan, State, plan, same, status};
use crate::meta::{name, now};

fn set(replicas: i32) -> ReplicaSet {
    serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "n", "uid": "u"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b", "c": "d"}}}}}))
    .unwrap()
}

fn pod(name: &str, owner: &str, ready: bool, labels: Value) -> Arc<Pod> {
    let owners = match owner {
        "" => json!([]),
        uid => json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "s", "uid": uid,
            "controller": true}]),
    };
    let status = if ready { "True" } else { "False" };
    Arc::new(
        serde_json::from_value(json!({"metadata": {"name": name, "uid": name, "labels": labels,
            "ownerReferences": owners}, "spec": {"containers": [], "nodeName": "x"},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status,
                "lastTransitionTime": "2020-01-01T00:00:00Z"}]}}))
        .unwrap(),
    )
}

fn run(replicas: i32, pods: &[Arc<Pod>], unseen: usize, doomed: &[&str]) -> Plan {
    let doomed: HashSet<String> = doomed.iter().map(|s| (*s).to_owned()).collect();
    let set = set(replicas);
    plan(&State { set: &set, pods, related: pods, unseen, doomed: &doomed })
}

fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
    pods.iter().map(|p| name(&p.metadata)).collect()
}

#[test]
fn missing_pods_are_made_unless_on_their_way() {
    let one = [pod("p", "u", true, json!({"a": "b"}))];
    assert_eq!(run(3, &one, 0, &[]).create, 2);
    assert_eq!(run(3, &one, 2, &[]).create, 0);
    assert_eq!(run(1, &one, 0, &["p"]).create, 1);
}

#[test]
fn the_least_ready_go_first() {
    let pods =
        [pod("ready", "u", true, json!({"a": "b"})), pod("unready", "u", false, json!({"a": "b"}))];
    let plan = run(1, &pods, 0, &[]);
    assert_eq!((plan.create, names(&plan.delete)), (0, vec!["unready"]));
}

#[test]
fn orphans_are_adopted_and_strays_released() {
    let pods = [
        pod("orphan", "", true, json!({"a": "b"})),
        pod("stray", "u", true, json!({"a": "x"})),
        pod("other", "v", true, json!({"a": "b"})),
    ];
    let plan = run(1, &pods, 0, &[]);
    assert_eq!((names(&plan.adopt), names(&plan.release)), (vec!["orphan"], vec!["stray"]));
    assert_eq!((plan.create, plan.delete.len()), (0, 0));
}

#[test]
fn status_counts_and_stays() {
    let pods =
        [pod("p", "u", true, json!({"a": "b", "c": "d"})), pod("q", "u", false, json!({"a": "b"}))];
    let set = set(2);
    let (new, recheck) = status(&set, &pods, None, &now());
    let counts = (new.replicas, new.fully_labeled_replicas, new.ready_replicas);
    assert_eq!((counts, recheck), ((2, Some(1), Some(1)), None));
    assert!(same(Some(&new), &new) && !same(None, &new));
}
