//! Constraints that must hold, constraints that should, and whom events help.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use super::*;
use crate::testing::{Bed, node, pod, typed};

const HOST: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
const WORDS: &str = "node(s) didn't match pod topology spread constraints";

fn zoned(name: &str, zone: &str) -> Arc<Node> {
    node(name, json!({"metadata": {"labels": {ZONE: zone}}}))
}

fn constraint(key: &str, skew: i64, extra: Value) -> Value {
    let mut value = json!({"maxSkew": skew, "topologyKey": key,
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "a"}}});
    crate::testing::merge(&mut value, &extra);
    value
}

fn spreads(constraints: &[Value]) -> Value {
    json!({"spec": {"topologySpreadConstraints": constraints}})
}

fn zones() -> Bed {
    let mut bed =
        Bed::new(&[zoned("a1", "a"), zoned("a2", "a"), zoned("b1", "b"), zoned("b2", "b")]);
    for (i, at) in ["a1", "a1", "a2", "b1"].into_iter().enumerate() {
        bed.place(at, pod(&format!("p{i}"), "100m", json!({})));
    }
    bed
}

#[test]
fn the_skew_is_kept_in_every_domain() {
    let mut bed = zones();
    let p = pod("p", "100m", spreads(&[constraint(ZONE, 1, json!({}))]));
    let answer = bed.answer(&p);
    assert!(answer.starts_with('b'), "{answer}");
    // Two constraints at once: only b2 is left.
    let both = [constraint(ZONE, 1, json!({})), constraint(HOST, 1, json!({}))];
    assert_eq!(bed.answer(&pod("p", "100m", spreads(&both))), "b2");
    bed.place("b2", pod("x", "100m", json!({})));
    bed.place("b2", pod("y", "100m", json!({})));
    // a: 3, b: 3; hosts 2, 1, 1, 2: one more is allowed where there is one.
    let answer = bed.answer(&pod("p", "100m", spreads(&both)));
    assert!(["a2", "b1"].contains(&answer.as_str()), "{answer}");
    let hosts = [constraint(HOST, 1, json!({}))];
    bed.place("a2", pod("z", "100m", json!({})));
    assert_eq!(bed.answer(&pod("p", "100m", spreads(&hosts))), "b1");
}

#[test]
fn refusals_have_upstreams_words() {
    let mut bed = Bed::new(&[zoned("a", "a"), node("none", json!({}))]);
    bed.place("a", pod("x", "100m", json!({})));
    let p = pod("p", "100m", spreads(&[constraint(ZONE, 1, json!({"minDomains": 2}))]));
    let answer = bed.answer(&p);
    assert!(
        answer.starts_with(&format!(
            "0/2 nodes are available: 1 {WORDS}, 1 {WORDS} (missing required label). "
        )),
        "{answer}"
    );
    let why = bed.schedule(&p).unwrap_err().why;
    assert_eq!(
        why,
        "To fit on the nearest node a: allow a skew of 2 over topology.kubernetes.io/zone (maxSkew is 1)."
    );
}

#[test]
fn min_domains_makes_missing_domains_count_as_empty() {
    let mut bed = zones();
    let three = json!({"minDomains": 3});
    // The least is 0: zone a has 3, zone b has 1.
    let answer = bed.answer(&pod("p", "100m", spreads(&[constraint(ZONE, 1, three.clone())])));
    assert!(answer.contains(&format!("4 {WORDS}.")), "{answer}");
    let answer = bed.answer(&pod("p", "100m", spreads(&[constraint(ZONE, 2, three)])));
    assert!(answer.starts_with('b'), "{answer}");
}

#[test]
fn match_label_keys_narrow_whom_it_counts() {
    let mut bed = zones();
    let own = json!({"metadata": {"labels": {"version": "2"}}, "spec": {
        "topologySpreadConstraints": [constraint(ZONE, 1, json!({"matchLabelKeys": ["version"]}))]}});
    bed.place("b1", pod("v2", "100m", own.clone()));
    let answer = bed.answer(&pod("p", "100m", own));
    assert!(answer.starts_with('a'), "only version 2 counts: {answer}");
}

#[test]
fn policies_say_which_nodes_count() {
    // Node c1 is the only one of zone c, empty, and not for this pod.
    let nodes = |c: Value| {
        let mut c1 = json!({"metadata": {"labels": {ZONE: "c"}}});
        crate::testing::merge(&mut c1, &c);
        let pool = |name: &str, zone: &str| {
            node(name, json!({"metadata": {"labels": {ZONE: zone, "pool": "x"}}}))
        };
        let mut bed = Bed::new(&[pool("a1", "a"), pool("b1", "b"), node("c1", c1)]);
        bed.place("a1", pod("p0", "100m", json!({})));
        bed.place("b1", pod("p1", "100m", json!({})));
        bed
    };
    let pod = |constraint: Value, extra: Value| {
        let mut value = spreads(&[constraint]);
        crate::testing::merge(&mut value, &extra);
        pod("p", "100m", value)
    };
    let selects = json!({"spec": {"nodeSelector": {"pool": "x"}}});
    let honor = pod(constraint(ZONE, 1, json!({})), selects.clone());
    let answer = nodes(json!({})).answer(&honor);
    assert!(["a1", "b1"].contains(&answer.as_str()), "c1 does not count: {answer}");
    let ignore = pod(constraint(ZONE, 1, json!({"nodeAffinityPolicy": "Ignore"})), selects);
    let answer = nodes(json!({})).answer(&ignore);
    assert!(answer.contains(&format!("2 {WORDS}")), "c1 counts as empty: {answer}");
    let taint = json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    let ignore = pod(constraint(ZONE, 1, json!({})), json!({}));
    let answer = nodes(taint.clone()).answer(&ignore);
    assert!(answer.contains(&format!("2 {WORDS}")), "tainted nodes count: {answer}");
    let honor = pod(constraint(ZONE, 1, json!({"nodeTaintsPolicy": "Honor"})), json!({}));
    let answer = nodes(taint).answer(&honor);
    assert!(["a1", "b1"].contains(&answer.as_str()), "tainted nodes do not count: {answer}");
}

#[test]
fn pods_that_end_and_pods_elsewhere_do_not_count() {
    let mut bed = zones();
    for i in 0..3 {
        bed.cache.remove_pod(&format!("p{i}"));
    }
    bed.place(
        "a1",
        pod(
            "ends",
            "100m",
            json!({"metadata": {
        "deletionTimestamp": "2026-01-01T00:00:00Z"}}),
        ),
    );
    bed.place("a1", pod("other", "100m", json!({"metadata": {"namespace": "n"}})));
    let answer = bed.answer(&pod("p", "100m", spreads(&[constraint(ZONE, 1, json!({}))])));
    assert!(answer.starts_with('a'), "{answer}");
}

#[test]
fn what_should_hold_is_a_preference() {
    let mut bed = zones();
    let soft = json!({"whenUnsatisfiable": "ScheduleAnyway"});
    let p =
        pod("p", "100m", spreads(&[constraint(ZONE, 1, soft.clone()), constraint(HOST, 1, soft)]));
    assert_eq!(bed.answer(&p), "b2");
    for i in 0..4 {
        bed.place("b2", pod(&format!("q{i}"), "100m", json!({})));
    }
    assert_eq!(bed.answer(&p), "a2");
}

fn replica(bed: &Bed, name: &str) -> Arc<PodInfo> {
    let set = json!({"metadata": {"name": "s", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "a"}}}});
    bed_listers(bed).replica_sets.put(Arc::new(typed::<ReplicaSet>(set)));
    pod(
        name,
        "100m",
        json!({"metadata": {"ownerReferences": [{"apiVersion": "apps/v1",
        "kind": "ReplicaSet", "name": "s", "uid": "u", "controller": true}]}}),
    )
}

fn bed_listers(bed: &Bed) -> &Listers {
    &bed.listers
}

#[test]
fn replicas_and_pods_of_a_service_are_spread_by_default() {
    let mut bed = zones();
    bed.place("b2", pod("x", "10m", json!({"metadata": {"labels": {"app": "other"}}})));
    let p = replica(&bed, "p");
    assert_eq!(bed.answer(&p), "b2", "the one with none of its own");
    // A service's selector does the same for pods without a set.
    let mut bed = zones();
    let service = json!({"metadata": {"name": "s", "namespace": "default"},
        "spec": {"selector": {"app": "a"}}});
    bed.listers.services.put(&typed::<Service>(service.clone()));
    assert_eq!(bed.answer(&pod("p", "100m", json!({}))), "b2");
    bed.listers.services.remove(&typed::<Service>(service));
    let labels = crate::labels::Labels::from([("app".to_owned(), "a".to_owned())]);
    assert!(bed.listers.services.selector_labels("default", Some(&labels)).is_empty());
}

#[test]
fn defaults_may_come_from_the_configuration() {
    let config = json!({"profiles": [{"pluginConfig": [{"name": "PodTopologySpread", "args": {
        "defaultingType": "List", "defaultConstraints": [{"maxSkew": 1, "topologyKey": ZONE,
            "whenUnsatisfiable": "DoNotSchedule"}]}}]}]});
    let mut bed = Bed::configured(&[zoned("a1", "a"), zoned("b1", "b")], config);
    bed.place("a1", pod("p0", "1", json!({})));
    bed.place("b1", pod("p1", "3", json!({})));
    bed.place("b1", pod("p2", "100m", json!({})));
    let p = replica(&bed, "p");
    assert_eq!(bed.answer(&p), "a1");
    bed.place("a1", replica(&bed, "p3"));
    bed.place("a1", replica(&bed, "p4"));
    assert_eq!(bed.answer(&p), "b1");
}

#[test]
fn events_help_when_they_move_a_count() {
    let plugin = PodTopologySpread::new(Arc::default());
    let waits = pod("p", "1", spreads(&[constraint(ZONE, 1, json!({}))]));
    let placed = |name: &str, labels: Value, namespace: &str| {
        let extra = json!({"metadata": {"labels": labels, "namespace": namespace},
            "spec": {"nodeName": "a"}});
        pod(name, "1", extra).pod.clone()
    };
    let helps = |action, old: Option<Arc<Pod>>, new: Option<Arc<Pod>>| {
        plugin.queueing_hint(
            &waits,
            &ClusterEvent::new(action, crate::event::Object::Pod((old, new))),
        )
    };
    let mine = placed("x", json!({"app": "a"}), "default");
    let other = placed("x", json!({"app": "b"}), "default");
    let far = placed("x", json!({"app": "a"}), "n");
    assert!(helps(Action::ADD, None, Some(mine.clone())));
    assert!(helps(Action::DELETE, Some(mine.clone()), None));
    assert!(!helps(Action::DELETE, Some(other.clone()), None));
    assert!(!helps(Action::DELETE, Some(far), None));
    assert!(helps(Action::POD_LABEL, Some(other.clone()), Some(mine)));
    assert!(!helps(Action::POD_LABEL, Some(other.clone()), Some(other)));
    let node_event = |old: Option<Arc<Node>>, new: Option<Arc<Node>>| {
        let event = ClusterEvent::new(Action::ADD, crate::event::Object::Node((old, new)));
        plugin.queueing_hint(&waits, &event)
    };
    assert!(node_event(None, Some(zoned("a", "a"))));
    assert!(!node_event(None, Some(node("n", json!({})))));
    assert!(node_event(Some(zoned("a", "a")), None));
    assert!(node_event(Some(zoned("a", "a")), Some(zoned("a", "b"))));
    assert!(!node_event(Some(zoned("a", "a")), Some(zoned("a", "a"))));
}
