//! Whom preemption chooses, whom it spares, and what it says.

use std::sync::Arc;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};

use crate::algorithm::FitError;
use crate::framework::Victims;
use crate::pod::PodInfo;
use crate::testing::{Bed, merge, node, pod, typed};

fn ranked(name: &str, cpu: &str, priority: i32, extra: Value) -> Arc<PodInfo> {
    let mut value = json!({"spec": {"priority": priority}});
    merge(&mut value, &extra);
    pod(name, cpu, value)
}

fn started(at: &str) -> Value {
    json!({"status": {"startTime": at}})
}

fn refused(bed: &mut Bed, pod: &Arc<PodInfo>) -> Box<FitError> {
    bed.schedule(pod).expect_err("there is no room")
}

fn victims(bed: &mut Bed, pod: &Arc<PodInfo>) -> (String, Vec<String>) {
    let fit = refused(bed, pod);
    let Victims { node, pods, .. } = fit.nominated.expect("preemption helps");
    (node, pods.iter().map(|p| p.name().to_owned()).collect())
}

#[test]
fn the_least_important_pods_make_room() {
    let mut bed = Bed::new(&[node("a", json!({})), node("b", json!({}))]);
    bed.place("a", ranked("low", "4", 1, json!({})));
    bed.place("b", ranked("mid", "4", 5, json!({})));
    let high = ranked("high", "1", 10, json!({}));
    let fit = refused(&mut bed, &high);
    assert_eq!(fit.message(), "0/2 nodes are available: 2 Insufficient cpu.");
    assert_eq!(fit.why, "To fit on node a: wait until 1 pod of lower priority ends.");
    assert_eq!(victims(&mut bed, &high), ("a".into(), vec!["low".into()]));
}

#[test]
fn as_few_as_possible_and_the_most_important_last() {
    let mut bed = Bed::new(&[node("a", json!({}))]);
    bed.place("a", ranked("p1", "1", 1, started("2026-01-01T00:00:00Z")));
    bed.place("a", ranked("p2", "1", 1, started("2026-01-02T00:00:00Z")));
    bed.place("a", ranked("p3", "1", 2, json!({})));
    bed.place("a", ranked("p4", "1", 9, json!({})));
    let pods = |bed: &mut Bed, cpu: &str| victims(bed, &ranked("high", cpu, 5, json!({}))).1;
    // Of equals the youngest goes; the more important stay if they can.
    assert_eq!(pods(&mut bed, "1"), ["p2"]);
    assert_eq!(pods(&mut bed, "2"), ["p1", "p2"]);
    assert_eq!(pods(&mut bed, "3"), ["p3", "p1", "p2"]);
}

#[test]
fn nodes_are_compared_in_upstreams_order() {
    // Each case: pods of node a, pods of node b (cpu, priority, start), and the node that is chosen.
    type Pods = Vec<(&'static str, i32, &'static str)>;
    let (early, late) = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
    let cases: Vec<(Pods, Pods, &str)> = vec![
        // The least important highest victim,
        (vec![("4", 3, early)], vec![("4", 2, early)], "b"),
        // then the least importance in sum,
        (vec![("2", 3, early), ("2", 3, early)], vec![("2", 3, early), ("2", 1, early)], "b"),
        // then the fewest pods, also where priorities are negative,
        (vec![("2", -1, early), ("2", -1, early)], vec![("4", -1, early)], "b"),
        // then the latest start.
        (vec![("4", 3, early)], vec![("4", 3, late)], "b"),
        (vec![("4", 3, late)], vec![("4", 3, early)], "a"),
    ];
    for (a, b, wanted) in cases {
        let mut bed = Bed::new(&[node("a", json!({})), node("b", json!({}))]);
        for (at, pods) in [("a", &a), ("b", &b)] {
            for (i, (cpu, priority, start)) in pods.iter().enumerate() {
                bed.place(at, ranked(&format!("{at}{i}"), cpu, *priority, started(start)));
            }
        }
        let chosen = victims(&mut bed, &ranked("high", "4", 10, json!({}))).0;
        assert_eq!(chosen, wanted, "{a:?} {b:?}");
    }
}

fn budget(allowed: i32, extra: Value) -> Arc<PodDisruptionBudget> {
    let mut value = json!({"metadata": {"name": "b", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "a"}}},
        "status": {"disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1,
            "expectedPods": 1}});
    merge(&mut value, &extra);
    Arc::new(typed(value))
}

#[test]
fn protected_pods_are_spared_where_others_can_go() {
    let other = |extra: Value| {
        let mut value = json!({"metadata": {"labels": {"app": "other"}}});
        merge(&mut value, &extra);
        value
    };
    let build = |budget: Arc<PodDisruptionBudget>| {
        let mut bed = Bed::new(&[node("a", json!({})), node("b", json!({}))]);
        bed.listers.budgets.put(budget);
        bed.place("a", ranked("protected", "4", 1, json!({})));
        bed.place("b", ranked("free", "4", 5, other(json!({}))));
        bed
    };
    let high = ranked("high", "1", 10, json!({}));
    assert_eq!(victims(&mut build(budget(0, json!({}))), &high).0, "b", "fewest broken budgets");
    assert_eq!(victims(&mut build(budget(1, json!({}))), &high).0, "a", "the budget allows one");
    let disrupted = json!({"status": {"disruptedPods": {"protected": "2026-01-01T00:00:00Z"}}});
    assert_eq!(victims(&mut build(budget(0, disrupted)), &high).0, "a", "it was counted already");
    let elsewhere = json!({"metadata": {"namespace": "n"}});
    assert_eq!(victims(&mut build(budget(0, elsewhere)), &high).0, "a");
    // On one node, the protected pod is the last to go.
    let mut bed = Bed::new(&[node("a", json!({}))]);
    bed.listers.budgets.put(budget(0, json!({})));
    bed.place("a", ranked("protected", "2", 1, json!({})));
    bed.place("a", ranked("free", "2", 5, other(json!({}))));
    assert_eq!(victims(&mut bed, &ranked("high", "2", 10, json!({}))).1, ["free"]);
}

#[test]
fn who_may_not_preempt_is_told_why() {
    let mut bed = Bed::new(&[node("a", json!({}))]);
    bed.place("a", ranked("low", "4", 1, json!({})));
    let never = ranked("p", "1", 10, json!({"spec": {"preemptionPolicy": "Never"}}));
    let start =
        "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: ";
    let told = |bed: &mut Bed, pod: &Arc<PodInfo>| refused(bed, pod).message();
    assert_eq!(
        told(&mut bed, &never),
        format!("{start}not eligible due to preemptionPolicy=Never.")
    );
    let equal = ranked("p", "1", 1, json!({}));
    assert_eq!(
        told(&mut bed, &equal),
        format!("{start}0/1 nodes are available: 1 No preemption victims found for incoming pod.")
    );
    let fit = refused(&mut bed, &equal);
    assert!(fit.nominated.is_none() && fit.clear_nomination);
    // Its victim of before is still ending.
    let ends = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {
        "conditions": [{"type": "DisruptionTarget", "status": "True",
            "reason": "PreemptionByScheduler"}]}});
    let mut bed = Bed::new(&[node("a", json!({}))]);
    bed.place("a", ranked("ends", "4", 1, ends));
    let waits = ranked("p", "1", 10, json!({"status": {"nominatedNodeName": "a"}}));
    let fit = refused(&mut bed, &waits);
    assert_eq!(
        fit.message(),
        format!("{start}not eligible due to a terminating pod on the nominated node.")
    );
    assert!(fit.nominated.is_none() && !fit.clear_nomination);
}

#[test]
fn where_no_end_helps_preemption_says_so() {
    let small = json!({"status": {"allocatable": {"cpu": "1"}}});
    let mut bed = Bed::new(&[node("a", small), node("b", json!({}))]);
    bed.place("a", ranked("low", "1", 1, json!({})));
    bed.place("b", ranked("high", "4", 20, json!({})));
    assert_eq!(
        refused(&mut bed, &ranked("p", "2", 10, json!({}))).message(),
        "0/2 nodes are available: 2 Insufficient cpu. no new claims to deallocate, preemption: \
         0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is \
         not helpful for scheduling."
    );
}

#[test]
fn room_that_is_kept_is_not_given_to_a_lesser_pod() {
    let mut bed = Bed::new(&[node("a", json!({}))]);
    let high = ranked("high", "3", 10, json!({}));
    bed.nominate("a", high.clone());
    assert!(bed.answer(&ranked("lesser", "2", 3, json!({}))).contains("1 Insufficient cpu"));
    assert_eq!(bed.answer(&ranked("small", "1", 3, json!({}))), "a");
    assert_eq!(bed.answer(&ranked("higher", "4", 20, json!({}))), "a");
    assert_eq!(bed.answer(&high), "a", "it does not yield to itself");
}

fn anti(extra: Value) -> Value {
    let mut value = json!({"spec": {"affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [{
            "labelSelector": {"matchLabels": {"app": "a"}},
            "topologyKey": "kubernetes.io/hostname"}]}}}});
    merge(&mut value, &extra);
    value
}

#[test]
fn anti_affinity_spread_and_ports_are_tried_without_the_victims() {
    let mut bed = Bed::new(&[node("a", json!({})), node("b", json!({}))]);
    bed.place("a", ranked("low", "1", 1, anti(json!({}))));
    bed.place("b", ranked("mid", "1", 5, anti(json!({}))));
    let high = ranked("high", "1", 10, anti(json!({})));
    assert_eq!(victims(&mut bed, &high), ("a".into(), vec!["low".into()]));
    // The placed pod's own anti-affinity counts, too.
    let plain = ranked("plain", "1", 10, json!({}));
    assert_eq!(victims(&mut bed, &plain), ("a".into(), vec!["low".into()]));
    let spread = json!({"spec": {"topologySpreadConstraints": [{"maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "a"}}}]}});
    let mut bed = Bed::new(&[node("a", json!({})), node("b", json!({}))]);
    bed.place("a", ranked("a1", "1", 1, json!({})));
    bed.place("a", ranked("a2", "1", 1, json!({})));
    bed.place("b", ranked("full", "4", 50, json!({"metadata": {"labels": {"app": "x"}}})));
    let chosen = victims(&mut bed, &ranked("high", "1", 10, spread));
    assert_eq!((chosen.0.as_str(), chosen.1.len()), ("a", 2), "both have to go for a skew of 1");
}

#[test]
fn a_bounded_number_of_nodes_is_tried() {
    let args = json!({"profiles": [{"pluginConfig": [{"name": "DefaultPreemption", "args": {
        "minCandidateNodesPercentage": 10, "minCandidateNodesAbsolute": 5}}]}]});
    let nodes: Vec<_> = (0..40).map(|i| node(&format!("n{i}"), json!({}))).collect();
    let mut bed = Bed::configured(&nodes, args);
    for i in 0..40 {
        bed.place(&format!("n{i}"), ranked(&format!("p{i}"), "4", i, json!({})));
    }
    let chosen = |bed: &mut Bed| victims(bed, &ranked("high", "4", 100, json!({}))).0;
    let names: std::collections::BTreeSet<String> = (0..8).map(|_| chosen(&mut bed)).collect();
    assert!(names.len() > 1, "the search starts elsewhere each time: {names:?}");
}
