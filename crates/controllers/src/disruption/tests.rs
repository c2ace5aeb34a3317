//! What budgets allow.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::plan::{judge, needs_scale, refused};

fn budget(spec: Value) -> PodDisruptionBudget {
    serde_json::from_value(
        json!({"metadata": {"name": "b", "namespace": "n", "generation": 3}, "spec": spec}),
    )
    .unwrap()
}

fn pods(ready: usize, unready: usize) -> Vec<Arc<Pod>> {
    let pod = |n: usize| {
        let status = if n < ready { "True" } else { "False" };
        let pod = json!({"metadata": {"name": format!("p{n}")},
            "status": {"conditions": [{"type": "Ready", "status": status}]}});
        Arc::new(serde_json::from_value(pod).unwrap())
    };
    (0..ready + unready).map(pod).collect()
}

fn at(second: i64) -> Time {
    Time(
        "2026-01-01T00:00:00Z".parse::<jiff::Timestamp>().unwrap()
            + jiff::SignedDuration::from_secs(second),
    )
}

/// Expected, desired, healthy, allowed.
fn numbers(spec: Value, pods: &[Arc<Pod>], expected: i32) -> (i32, i32, i32, i32) {
    let status = judge(&budget(spec), pods, expected, &at(0)).unwrap().status.unwrap();
    let allowed = status.disruptions_allowed.unwrap();
    let healthy = status.current_healthy.unwrap();
    (status.expected_pods.unwrap(), status.desired_healthy.unwrap(), healthy, allowed)
}

#[test]
fn budgets_are_numbers_or_shares() {
    assert_eq!(numbers(json!({"minAvailable": 2}), &pods(3, 1), 4), (4, 2, 3, 1));
    assert_eq!(numbers(json!({"minAvailable": "50%"}), &pods(3, 0), 5), (5, 3, 3, 0));
    assert_eq!(numbers(json!({"maxUnavailable": 1}), &pods(4, 0), 4), (4, 3, 4, 1));
    assert_eq!(numbers(json!({"maxUnavailable": "30%"}), &pods(10, 0), 10), (10, 7, 10, 3));
    assert_eq!(numbers(json!({"maxUnavailable": 9}), &pods(1, 0), 4), (4, 0, 1, 1));
    // Without pods nothing is allowed, though nothing is missing.
    assert_eq!(numbers(json!({"minAvailable": 0}), &[], 0), (0, 0, 0, 0));
    assert!(needs_scale(&budget(json!({"maxUnavailable": 1}))));
    assert!(!needs_scale(&budget(json!({"minAvailable": 1}))));
    assert!(judge(&budget(json!({"minAvailable": "x"})), &[], 1, &at(0)).is_err());
}

#[test]
fn a_status_is_written_once() {
    let mut it = budget(json!({"minAvailable": 1}));
    let status = judge(&it, &pods(2, 0), 2, &at(0)).unwrap().status.unwrap();
    let condition = serde_json::to_value(&status.conditions.as_ref().unwrap()[0]).unwrap();
    assert_eq!(
        condition,
        json!({"type": "DisruptionAllowed", "status": "True", "reason": "SufficientPods",
            "message": "", "observedGeneration": 3, "lastTransitionTime": "2026-01-01T00:00:00Z"})
    );
    it.status = Some(status);
    assert_eq!(judge(&it, &pods(2, 0), 2, &at(9)).unwrap().status, None);
    let changed = judge(&it, &pods(1, 1), 2, &at(9)).unwrap().status.unwrap();
    let condition = &changed.conditions.as_ref().unwrap()[0];
    assert_eq!(
        (condition.reason.as_str(), &condition.last_transition_time),
        ("InsufficientPods", &at(9))
    );
    let status = refused(&it, "why", &at(9)).unwrap();
    assert_eq!(status.disruptions_allowed, Some(0));
    it.status = Some(status);
    assert_eq!(refused(&it, "why", &at(10)), None);
}

#[test]
fn granted_evictions_count_until_they_show() {
    let mut it = budget(json!({"minAvailable": 1}));
    it.status = serde_json::from_value(json!({"currentHealthy": 2, "desiredHealthy": 1,
        "disruptionsAllowed": 0, "expectedPods": 2, "observedGeneration": 3,
        "disruptedPods": {"p0": "2026-01-01T00:00:00Z", "gone": "2026-01-01T00:00:00Z"}}))
    .unwrap();
    let soon = judge(&it, &pods(3, 0), 3, &at(20)).unwrap();
    let status = soon.status.unwrap();
    assert_eq!((status.current_healthy, status.disruptions_allowed), (Some(2), Some(1)));
    let waiting: Vec<_> = status.disrupted_pods.iter().flatten().map(|(name, _)| name).collect();
    assert_eq!(waiting, ["p0"]);
    assert_eq!((soon.recheck, soon.not_deleted.len()), (Some(101), 0));
    let late = judge(&it, &pods(3, 0), 3, &at(121)).unwrap();
    let status = late.status.unwrap();
    assert_eq!((status.current_healthy, status.disrupted_pods), (Some(3), None));
    assert_eq!((late.recheck, late.not_deleted.len()), (None, 1));
}
