//! Golden cases of autoscaling: proposals from metrics, and what limits make of them.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerBehavior;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::metrics::text;
use super::normalize::{History, Range};
use super::replicas::{Pods, Sample, Samples, Target, Tolerance};

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

/// A pod that requests a whole CPU: `Ready`, `Unready`, or a phase.
fn pod(name: &str, state: &str) -> Arc<Pod> {
    let (phase, ready) = match state {
        "Ready" => ("Running", "True"),
        "Unready" => ("Running", "False"),
        phase => (phase, "False"),
    };
    let value = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c",
        "resources": {"requests": {"cpu": "1"}}}]}, "status": {"phase": phase,
            "startTime": "2026-01-01T00:00:00Z", "conditions": [{"type": "Ready", "status": ready,
                "lastTransitionTime": "2026-01-01T00:00:10Z"}]}});
    Arc::new(serde_json::from_value(value).unwrap())
}

fn samples(values: &[(&str, i64)]) -> Samples {
    let sample = |value| Sample { value, at: now(), window: SignedDuration::from_secs(30) };
    values.iter().map(|(pod, value)| ((*pod).to_owned(), sample(*value))).collect()
}

fn propose(states: &[&str], target: Target, values: &[i64]) -> Result<i32, String> {
    let names: Vec<String> = (0..states.len()).map(|n| format!("p{n}")).collect();
    let pods: Vec<_> = names.iter().zip(states).map(|(n, s)| pod(n, s)).collect();
    let values: Vec<(&str, i64)> =
        names.iter().map(String::as_str).zip(values.iter().copied()).collect();
    let current = i32::try_from(states.len()).unwrap();
    let pods = Pods {
        pods: &pods,
        resource: "cpu",
        container: None,
        current,
        tolerance: Tolerance { up: 0.1, down: 0.1 },
        now: now(),
    };
    pods.propose(target, samples(&values)).map(|p| p.replicas)
}

// The figures of upstream's own table of cases.
#[test]
fn utilization_decides() {
    let cpu = |states: &[&str], percent, values: &[i64]| {
        propose(states, Target::Utilization(percent), values)
    };
    let ready = ["Ready"; 3];
    assert_eq!(cpu(&ready, 30, &[300, 500, 700]), Ok(5));
    assert_eq!(cpu(&["Ready"; 5], 50, &[100, 300, 500, 250, 250]), Ok(3));
    // Near enough.
    assert_eq!(cpu(&ready, 100, &[990, 1010, 1050]), Ok(3));
    // Unready pods count as idle when it grows, and not at all when it shrinks.
    assert_eq!(cpu(&["Unready", "Ready", "Ready"], 30, &[300, 500, 700]), Ok(4));
    assert_eq!(cpu(&["Pending", "Ready", "Ready"], 30, &[0, 500, 700]), Ok(4));
    assert_eq!(cpu(&["Failed", "Ready", "Ready"], 30, &[0, 500, 700]), Ok(4));
    // Pods without a value speak against a change.
    assert_eq!(cpu(&["Ready"; 4], 100, &[1000]), Ok(4));
    assert_eq!(cpu(&["Ready"; 2], 50, &[100]), Ok(2));
    let none = "did not receive metrics for targeted pods (pods might be unready)";
    assert_eq!(cpu(&ready, 30, &[]), Err(none.into()));
    let nobody = "no pods returned by selector while calculating replica count";
    assert_eq!(cpu(&[], 30, &[]), Err(nobody.into()));
}

#[test]
fn averages_decide() {
    let average =
        |states: &[&str], target, values: &[i64]| propose(states, Target::Average(target), values);
    assert_eq!(average(&["Ready"; 3], 15_000, &[20_000, 10_000, 30_000]), Ok(4));
    assert_eq!(average(&["Ready"; 5], 20_000, &[12_000; 5]), Ok(3));
    assert_eq!(average(&["Ready"; 3], 20_000, &[19_000, 20_000, 21_000]), Ok(3));
}

#[test]
fn a_pod_without_a_request_is_named() {
    let bare: Pod = serde_json::from_value(json!({"metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c"}]}, "status": {"phase": "Running",
            "startTime": "2026-01-01T00:00:00Z", "conditions": [{"type": "Ready",
                "status": "True", "lastTransitionTime": "2026-01-01T00:00:10Z"}]}}))
    .unwrap();
    let pods = Pods {
        pods: &[Arc::new(bare)],
        resource: "cpu",
        container: None,
        current: 1,
        tolerance: Tolerance { up: 0.1, down: 0.1 },
        now: now(),
    };
    let refused = pods.propose(Target::Utilization(50), samples(&[("p", 1)]));
    assert_eq!(refused, Err("missing request for cpu in container c of Pod p".to_owned()));
}

#[test]
fn one_value_for_all_pods() {
    let pods = [pod("a", "Ready"), pod("b", "Ready"), pod("c", "Unready")];
    let of = |current| Pods {
        pods: &pods,
        resource: "",
        container: None,
        current,
        tolerance: Tolerance { up: 0.1, down: 0.1 },
        now: now(),
    };
    assert_eq!(of(3).propose_for(30, 10).unwrap().replicas, 6);
    assert_eq!(of(3).propose_for(105, 100).unwrap().replicas, 3);
    assert_eq!(of(0).propose_for(25, 10).unwrap().replicas, 3);
    assert_eq!(of(3).propose_per_pod(100, 20, 3).replicas, 5);
    assert_eq!(of(3).propose_per_pod(60, 20, 3).replicas, 3);
}

fn range(current: i32) -> Range {
    Range { min: 2, max: 50, current }
}

#[tokio::test(start_paused = true)]
async fn without_rules_a_scale_doubles_and_shrinks_late() {
    let mut history = History::default();
    let at = Instant::now();
    let first = history.normalize(range(10), 40, None, at);
    assert_eq!((first.replicas, first.limit.reason, first.is_limited), (20, "ScaleUpLimit", true));
    let later = at + Duration::from_secs(200);
    let held = history.normalize(range(20), 5, None, later);
    assert_eq!((held.replicas, held.able.reason), (40, "ScaleDownStabilized"));
    let late = at + Duration::from_secs(301 + 200);
    let down = history.normalize(range(20), 1, None, late);
    assert_eq!((down.replicas, down.limit.reason), (2, "TooFewReplicas"));
    let mut fresh = History::default();
    let within = fresh.normalize(range(10), 12, None, at);
    assert_eq!(
        (within.replicas, within.able.reason, within.limit.reason),
        (12, "ReadyForNewScale", "DesiredWithinRange")
    );
    let most = fresh.normalize(Range { max: 15, ..range(10) }, 18, None, at);
    assert_eq!((most.replicas, most.limit.reason), (15, "TooManyReplicas"));
}

#[tokio::test(start_paused = true)]
async fn rules_limit_the_rate() {
    let behavior = |up: Value, down: Value| -> HorizontalPodAutoscalerBehavior {
        serde_json::from_value(json!({"scaleUp": up, "scaleDown": down})).unwrap()
    };
    let at = Instant::now();
    let pods = |value: i32| json!({"type": "Pods", "value": value, "periodSeconds": 60});
    let percent = |value: i32| json!({"type": "Percent", "value": value, "periodSeconds": 60});
    let rules = behavior(
        json!({"policies": [pods(4), percent(10)], "stabilizationWindowSeconds": 0}),
        json!({"policies": [pods(4), percent(10)], "selectPolicy": "Min",
            "stabilizationWindowSeconds": 0}),
    );
    let mut history = History::default();
    let up = history.normalize(range(10), 40, Some(&rules), at);
    assert_eq!((up.replicas, up.limit.reason), (14, "ScaleUpLimit"));
    history.scaled(10, 14, at);
    let soon = at + Duration::from_secs(30);
    assert_eq!(history.normalize(range(14), 40, Some(&rules), soon).replicas, 14);
    let later = at + Duration::from_secs(61);
    assert_eq!(history.normalize(range(14), 40, Some(&rules), later).replicas, 18);
    let down = History::default().normalize(range(20), 2, Some(&rules), at);
    assert_eq!((down.replicas, down.limit.reason), (18, "ScaleDownLimit"));
    let off = behavior(json!({"selectPolicy": "Disabled"}), json!({}));
    assert_eq!(History::default().normalize(range(10), 40, Some(&off), at).replicas, 10);
    let defaults = behavior(json!({}), json!({}));
    assert_eq!(History::default().normalize(range(10), 40, Some(&defaults), at).replicas, 20);
}

#[tokio::test(start_paused = true)]
async fn windows_hold_a_scale_back() {
    let behavior: HorizontalPodAutoscalerBehavior = serde_json::from_value(json!({
        "scaleUp": {"stabilizationWindowSeconds": 60},
        "scaleDown": {"stabilizationWindowSeconds": 60}}))
    .unwrap();
    let mut history = History::default();
    let at = Instant::now();
    history.begin(10, at);
    let soon = at + Duration::from_secs(10);
    let up = history.normalize(range(10), 15, Some(&behavior), soon);
    assert_eq!((up.replicas, up.able.reason), (10, "ScaleUpStabilized"));
    let down = history.normalize(range(12), 5, Some(&behavior), soon);
    assert_eq!((down.replicas, down.able.reason), (12, "ScaleDownStabilized"));
    let late = at + Duration::from_secs(100);
    assert_eq!(history.normalize(range(10), 15, Some(&behavior), late).replicas, 15);
}

#[test]
fn selectors_become_queries() {
    let selector = serde_json::from_value(json!({"matchLabels": {"a": "b"}, "matchExpressions": [
        {"key": "c", "operator": "In", "values": ["d", "e"]},
        {"key": "f", "operator": "DoesNotExist"}]}))
    .unwrap();
    assert_eq!(text(Some(&selector)), "a=b,c in (d,e),!f");
    assert_eq!(text(None), "");
}
