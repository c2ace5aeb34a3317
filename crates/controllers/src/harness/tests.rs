//! Who is adopted and released, what is waited for, and which statuses say the same.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{Candidates, by_deletion_order, rank, same_status, selected_by, slow_start};
use crate::meta::{name, selector};
use crate::pods::active;

fn owner(ends: bool) -> ReplicaSet {
    let mut value = json!({"metadata": {"name": "s", "namespace": "n", "uid": "u"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}}});
    if ends {
        value["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    }
    serde_json::from_value(value).unwrap()
}

fn pod(name: &str, owner: &str, label: &str, status: Value) -> Arc<Pod> {
    let owners = match owner {
        "" => json!([]),
        uid => json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "s", "uid": uid,
            "controller": true}]),
    };
    let value = json!({"metadata": {"name": name, "uid": name, "labels": {"a": label},
        "ownerReferences": owners}, "spec": {"containers": []}, "status": status});
    Arc::new(serde_json::from_value(value).unwrap())
}

fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
    pods.iter().map(|p| name(&p.metadata)).collect()
}

fn sorted(owner: &ReplicaSet) -> Candidates<Pod> {
    let running = json!({"phase": "Running"});
    let pods = vec![
        pod("ours", "u", "b", running.clone()),
        pod("stray", "u", "x", running.clone()),
        pod("other", "v", "b", running.clone()),
        pod("orphan", "", "b", running.clone()),
        pod("ended orphan", "", "b", json!({"phase": "Failed"})),
        pod("foreign orphan", "", "x", running),
    ];
    let selector = selector(&owner.spec.as_ref().unwrap().selector);
    Candidates::sort(owner, selected_by(selector), pods, active)
}

#[test]
fn orphans_are_adopted_and_strays_released() {
    let sorted = sorted(&owner(false));
    assert_eq!(names(&sorted.owned), ["ours"]);
    assert_eq!(names(&sorted.adopt), ["orphan"]);
    assert_eq!(names(&sorted.release), ["stray"]);
}

#[test]
fn an_owner_that_ends_adopts_and_releases_nothing() {
    let sorted = sorted(&owner(true));
    assert_eq!(names(&sorted.owned), ["ours"]);
    assert!(sorted.adopt.is_empty() && sorted.release.is_empty());
}

#[test]
fn the_least_useful_pod_goes_first() {
    let with = |name: &str, node: &str, phase: &str, cost: &str| {
        let value = json!({"metadata": {"name": name, "uid": name, "annotations":
            {"controller.kubernetes.io/pod-deletion-cost": cost}},
            "spec": {"containers": [], "nodeName": node}, "status": {"phase": phase}});
        Arc::new(serde_json::from_value::<Pod>(value).unwrap())
    };
    let pods = vec![
        with("dear", "a", "Running", "9"),
        with("crowded", "b", "Running", "0"),
        with("alone", "c", "Running", "0"),
        with("pending", "a", "Pending", "0"),
        with("unassigned", "", "Pending", "0"),
    ];
    let mut related = pods.clone();
    related.push(with("neighbour", "b", "Running", "0"));
    let ranked = rank(pods.clone(), &related);
    assert_eq!(names(&ranked), ["unassigned", "pending", "crowded", "alone", "dear"]);
    let mut plain = pods;
    by_deletion_order(&mut plain);
    assert_eq!(names(&plain)[..2], ["unassigned", "pending"]);
}

#[test]
fn zero_and_absent_are_the_same_status() {
    let old = json!({"replicas": 0, "conditions": [], "observedGeneration": 1});
    assert!(same_status(Some(&old), Some(&json!({"observedGeneration": 1}))));
    assert!(!same_status(Some(&old), Some(&json!({"observedGeneration": 2}))));
    assert!(same_status(None, Some(&json!({"replicas": 0}))));
}

#[tokio::test]
async fn creating_slows_down_before_many_fail() {
    let tried = std::sync::Mutex::new(Vec::new());
    let refused = || {
        let status = api::Status::failure(403, "Forbidden", "exceeded quota");
        Err(client::Error::from(status))
    };
    let items: Vec<usize> = (0..20).collect();
    let (done, outcome) = slow_start(&items, |n| {
        tried.lock().unwrap().push(*n);
        async move { if *n < 2 { Ok(()) } else { refused() } }
    })
    .await;
    assert!(outcome.is_err());
    // One, then two of which one fails; nothing after that.
    assert_eq!((done, tried.into_inner().unwrap()), (2, vec![0, 1, 2]));
}
