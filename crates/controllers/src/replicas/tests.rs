//! The plan and the status of replicas, for both kinds of owner.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use serde_json::{Value, json};

use super::owner::ReplicaOwner;
use super::plan::{Plan, State, plan, status};
use crate::meta::{name, now};

fn set(replicas: i32) -> ReplicaSet {
    serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "n", "uid": "u"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b", "c": "d"}}}}}))
    .unwrap()
}

fn pod(name: &str, ready: bool, labels: Value) -> Arc<Pod> {
    let status = if ready { "True" } else { "False" };
    Arc::new(
        serde_json::from_value(json!({"metadata": {"name": name, "uid": name, "labels": labels},
            "spec": {"containers": [], "nodeName": "x"},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status,
                "lastTransitionTime": "2020-01-01T00:00:00Z"}]}}))
        .unwrap(),
    )
}

fn run(replicas: i32, pods: &[Arc<Pod>], creations: usize, deletions: &[&str]) -> Plan {
    let deletions = deletions.iter().map(|s| (*s).to_owned()).collect();
    let owner = set(replicas);
    let state =
        State { owner: &owner, owned: pods, related: pods, creations, deletions: &deletions };
    plan(&state)
}

fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
    pods.iter().map(|p| name(&p.metadata)).collect()
}

#[test]
fn missing_pods_are_created_unless_on_their_way() {
    let one = [pod("p", true, json!({"a": "b"}))];
    assert_eq!(run(3, &one, 0, &[]).create, 2);
    assert_eq!(run(3, &one, 2, &[]).create, 0);
    assert_eq!(run(1, &one, 0, &["p"]).create, 1);
}

#[test]
fn the_least_ready_go_first() {
    let pods = [pod("ready", true, json!({"a": "b"})), pod("unready", false, json!({"a": "b"}))];
    let plan = run(1, &pods, 0, &[]);
    assert_eq!((plan.create, names(&plan.delete)), (0, vec!["unready"]));
}

#[test]
fn status_counts_and_stays() {
    let pods = [pod("p", true, json!({"a": "b", "c": "d"})), pod("q", false, json!({"a": "b"}))];
    let (new, recheck) = status(&set(2), &pods, None, &now());
    let counts = (new.replicas, new.fully_labeled_replicas, new.ready_replicas);
    assert_eq!((counts, recheck), ((2, Some(1), Some(1)), None));
    let same = crate::harness::same_status;
    assert!(same(Some(&new), Some(&new)) && !same(None, Some(&new)));
}

#[test]
fn a_failure_is_told_once_and_taken_back() {
    let failure = |text: &str| Some(("FailedCreate", text.to_owned()));
    let (first, _) = status(&set(2), &[], failure("no"), &now());
    let message = |s: &k8s_openapi::api::apps::v1::ReplicaSetStatus| {
        s.conditions.iter().flatten().filter_map(|c| c.message.clone()).collect::<Vec<_>>()
    };
    assert_eq!(message(&first), ["no"]);
    let failed = set(2).with_status(&first);
    assert_eq!(message(&status(&failed, &[], failure("again"), &now()).0), ["no"]);
    assert_eq!(message(&status(&failed, &[], None, &now()).0), Vec::<String>::new());
}

#[test]
fn a_replication_controller_is_counted_like_a_set() {
    let owner: ReplicationController = serde_json::from_value(json!({
        "metadata": {"name": "c", "namespace": "n", "uid": "u", "generation": 3},
        "spec": {"replicas": 2, "selector": {"a": "b"}, "minReadySeconds": 5,
            "template": {"metadata": {"labels": {"a": "b"}}}}}))
    .unwrap();
    let pods = [pod("p", true, json!({"a": "b"}))];
    let deletions = Default::default();
    let state =
        State { owner: &owner, owned: &pods, related: &pods, creations: 0, deletions: &deletions };
    assert_eq!(plan(&state).create, 1);
    let (new, _) = status(&owner, &pods, None, &now());
    let written = serde_json::to_value(owner.with_status(&new).status).unwrap();
    assert_eq!(
        written,
        json!({"replicas": 1, "fullyLabeledReplicas": 1, "readyReplicas": 1,
            "availableReplicas": 1, "observedGeneration": 3})
    );
}
