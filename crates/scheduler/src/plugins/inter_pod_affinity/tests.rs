//! Wanted, avoided and refusing pods, and whom events help.

use serde_json::{Value, json};

use super::*;
use crate::testing::{Bed, merge, node, pod};

const HOST: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

fn term(key: &str, app: &str, extra: Value) -> Value {
    let mut value = json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}});
    merge(&mut value, &extra);
    value
}

fn required(kind: &str, terms: &[Value]) -> Value {
    json!({"spec": {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}})
}

fn preferred(kind: &str, weight: i64, term: Value) -> Value {
    json!({"spec": {"affinity": {kind: {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": weight, "podAffinityTerm": term}]}}}})
}

fn app(name: &str, app: &str, extra: Value) -> Arc<PodInfo> {
    let mut value = json!({"metadata": {"labels": {"app": app}}});
    merge(&mut value, &extra);
    pod(name, "100m", value)
}

fn zoned(name: &str, zone: &str) -> Arc<Node> {
    node(name, json!({"metadata": {"labels": {ZONE: zone}}}))
}

fn bed() -> Bed {
    Bed::new(&[zoned("a1", "a"), zoned("a2", "a"), zoned("b1", "b"), node("none", json!({}))])
}

#[test]
fn affinity_needs_a_pod_that_all_terms_select_in_each_domain() {
    let mut bed = bed();
    bed.place("a1", app("db", "db", json!({"metadata": {"labels": {"tier": "x"}}})));
    let near = |terms: &[Value]| app("p", "web", required("podAffinity", terms));
    let zone = term(ZONE, "db", json!({}));
    let answer = bed.answer(&near(std::slice::from_ref(&zone)));
    assert!(answer.starts_with('a'), "{answer}");
    assert_eq!(bed.answer(&near(&[term(HOST, "db", json!({}))])), "a1");
    let answer = bed.answer(&near(&[term(ZONE, "cache", json!({}))]));
    assert!(
        answer.starts_with("0/4 nodes are available: 4 node(s) didn't match pod affinity rules. "),
        "{answer}"
    );
    // One pod for each term is not enough: one pod must be selected by all.
    bed.place("a1", app("cache", "cache", json!({})));
    let answer = bed.answer(&near(&[zone, term(ZONE, "cache", json!({}))]));
    assert!(answer.contains("4 node(s) didn't match pod affinity rules"), "{answer}");
}

#[test]
fn the_first_of_a_group_that_wants_its_own_kind_goes_anywhere_with_the_key() {
    let mut bed = bed();
    let own =
        |name: &str| app(name, "web", required("podAffinity", &[term(ZONE, "web", json!({}))]));
    let first = bed.run(&own("p1"));
    assert_ne!(first, "none", "the node must have the key");
    let second = bed.run(&own("p2"));
    assert_eq!(first.as_bytes()[0], second.as_bytes()[0], "the others follow it");
    let other = app("q", "x", required("podAffinity", &[term(ZONE, "y", json!({}))]));
    assert!(bed.answer(&other).contains("4 node(s) didn't match pod affinity rules"));
}

#[test]
fn anti_affinity_works_both_ways() {
    let mut bed = Bed::new(&[node("a", json!({})), node("b", json!({}))]);
    let anti =
        |name: &str| app(name, "web", required("podAntiAffinity", &[term(HOST, "web", json!({}))]));
    bed.place("a", anti("p1"));
    assert_eq!(bed.answer(&anti("p2")), "b");
    assert_eq!(bed.answer(&app("p3", "web", json!({}))), "b", "the one that is there refuses it");
    bed.place("b", anti("p2"));
    let answer = bed.answer(&app("p4", "web", json!({})));
    assert!(
        answer.starts_with(
            "0/2 nodes are available: 2 node(s) didn't satisfy existing pods anti-affinity rules. "
        ),
        "{answer}"
    );
    let answer = bed.answer(&anti("p5"));
    assert!(answer.contains("2 node(s) didn't match pod anti-affinity rules"), "{answer}");
    assert_eq!(bed.answer(&app("p6", "other", json!({}))), "a");
    bed.cache.remove_pod("p1");
    assert_eq!(bed.answer(&anti("p5")), "a");
}

#[test]
fn namespaces_are_listed_selected_or_the_pods_own() {
    let mut bed = bed();
    bed.namespace("default", &[]);
    bed.namespace("n", &[("team", "x")]);
    bed.place("b1", app("db", "db", json!({"metadata": {"namespace": "n"}})));
    let near = |extra: Value| app("p", "web", required("podAffinity", &[term(ZONE, "db", extra)]));
    let selects = |labels: Value| json!({"namespaceSelector": {"matchLabels": labels}});
    for (extra, fits) in [
        (json!({}), false),
        (json!({"namespaces": ["n"]}), true),
        (json!({"namespaces": ["other"]}), false),
        (selects(json!({"team": "x"})), true),
        (selects(json!({"team": "y"})), false),
        (json!({"namespaceSelector": {}}), true),
    ] {
        assert_eq!(bed.answer(&near(extra.clone())) == "b1", fits, "{extra}");
    }
    // What a selector counted is counted anew when a namespace's labels change.
    bed.namespace("n", &[("team", "y")]);
    assert_eq!(bed.answer(&near(selects(json!({"team": "y"})))), "b1");
    assert_ne!(bed.answer(&near(selects(json!({"team": "x"})))), "b1");
}

#[test]
fn label_keys_join_the_selector() {
    let labelled = |name: &str, version: &str| {
        app(name, "web", json!({"metadata": {"labels": {"version": version}}}))
    };
    let mut bed = Bed::new(&[node("a", json!({})), node("b", json!({}))]);
    bed.place("a", labelled("v1", "1"));
    bed.place("b", labelled("v2", "2"));
    let with = |kind: &str, extra: Value| {
        let mut value = required(kind, &[term(HOST, "web", extra)]);
        merge(&mut value, &json!({"metadata": {"labels": {"version": "2"}}}));
        app("p", "web", value)
    };
    assert_eq!(bed.answer(&with("podAffinity", json!({"matchLabelKeys": ["version"]}))), "b");
    assert_eq!(bed.answer(&with("podAffinity", json!({"mismatchLabelKeys": ["version"]}))), "a");
    assert_eq!(bed.answer(&with("podAntiAffinity", json!({"matchLabelKeys": ["version"]}))), "a");
}

#[test]
fn preferences_of_the_pod_and_of_those_that_are_there_add_up() {
    let mut bed = Bed::new(&[zoned("a", "a"), zoned("b", "b")]);
    bed.place("b", app("db", "db", json!({})));
    bed.place("a", app("x", "x", json!({})));
    let likes = app("p", "web", preferred("podAffinity", 10, term(ZONE, "db", json!({}))));
    assert_eq!(bed.answer(&likes), "b");
    let shuns = app("p", "web", preferred("podAntiAffinity", 10, term(ZONE, "db", json!({}))));
    assert_eq!(bed.answer(&shuns), "a");
    // A placed pod's preference counts for a pod that has none.
    let mut bed = Bed::new(&[zoned("a", "a"), zoned("b", "b")]);
    bed.place("b", app("fan", "fan", preferred("podAffinity", 10, term(ZONE, "web", json!({})))));
    bed.place("a", app("x", "x", json!({})));
    assert_eq!(bed.answer(&app("p", "web", json!({}))), "b");
    // And so does its required affinity, with a weight that can be set to nothing.
    let needs = || {
        let mut value = required("podAffinity", &[term(ZONE, "fan", json!({}))]);
        merge(&mut value, &json!({"metadata": {"labels": {"fan": "1"}}}));
        app("needs", "fan", value)
    };
    for (weight, wanted) in [(100, "b"), (0, "a")] {
        let config = json!({"profiles": [{"pluginConfig": [{"name": "InterPodAffinity",
            "args": {"hardPodAffinityWeight": weight}}]}]});
        let mut bed = Bed::configured(&[zoned("a", "a"), zoned("b", "b")], config);
        bed.place("b", needs());
        assert_eq!(bed.answer(&app("p", "fan", json!({}))), wanted, "{weight}");
    }
}

#[test]
fn counts_follow_nodes_that_move_and_go() {
    let mut bed = Bed::new(&[zoned("a", "a"), zoned("b", "b")]);
    bed.place("a", app("db", "db", json!({})));
    let near = app("p", "web", required("podAffinity", &[term(ZONE, "db", json!({}))]));
    assert_eq!(bed.answer(&near), "a");
    bed.cache.set_node(zoned("a", "c"));
    bed.cache.set_node(zoned("b", "c"));
    bed.place(
        "a",
        app(
            "big",
            "big",
            json!({"spec": {"containers": [{"name": "c", "resources":
        {"requests": {"cpu": "3900m"}}}]}}),
        ),
    );
    assert_eq!(bed.answer(&near), "b", "both are in zone c now");
    bed.cache.set_node(zoned("b", "b"));
    bed.cache.remove_node("a");
    let answer = bed.answer(&near);
    assert!(answer.contains("1 node(s) didn't match pod affinity rules"), "{answer}");
}

#[test]
fn events_help_whom_they_concern() {
    let plugin = InterPodAffinity::default();
    let helps = |pod: &PodInfo, action, object| {
        plugin.queueing_hint(pod, &ClusterEvent::new(action, object))
    };
    let placed = |labels: &str| app("x", labels, json!({"spec": {"nodeName": "a"}})).pod.clone();
    let near = app("p", "web", required("podAffinity", &[term(ZONE, "db", json!({}))]));
    let far = app("p", "web", required("podAntiAffinity", &[term(ZONE, "db", json!({}))]));
    let plain = app("p", "web", json!({}));
    assert!(helps(&near, Action::ADD, Object::Pod((None, Some(placed("db"))))));
    assert!(!helps(&near, Action::ADD, Object::Pod((None, Some(placed("x"))))));
    assert!(helps(&far, Action::DELETE, Object::Pod((Some(placed("db")), None))));
    assert!(!helps(&far, Action::DELETE, Object::Pod((Some(placed("x")), None))));
    let mut refusing = required("podAntiAffinity", &[term(ZONE, "web", json!({}))]);
    merge(&mut refusing, &json!({"spec": {"nodeName": "a"}}));
    let refusing = app("r", "db", refusing).pod.clone();
    assert!(helps(&plain, Action::DELETE, Object::Pod((Some(refusing), None))));
    assert!(!helps(&plain, Action::DELETE, Object::Pod((Some(placed("db")), None))));
    assert!(helps(&near, Action::POD_LABEL, Object::Pod((Some(placed("x")), Some(placed("db"))))));
    assert!(!helps(&near, Action::POD_LABEL, Object::Pod((Some(placed("db")), Some(placed("x"))))));
    let node_event = |pod: &PodInfo, old: Option<Arc<Node>>, new: Arc<Node>| {
        helps(pod, Action::NODE_LABEL, Object::Node((old, Some(new))))
    };
    assert!(node_event(&near, None, zoned("a", "a")));
    assert!(!node_event(&near, None, node("a", json!({}))));
    assert!(node_event(&near, Some(zoned("a", "a")), zoned("a", "b")));
    assert!(node_event(&far, Some(zoned("a", "a")), node("a", json!({}))));
    assert!(!node_event(&far, Some(node("a", json!({}))), zoned("a", "a")));
    // A namespace that joins or leaves a selector.
    let namespace = |labels: Value| {
        let value = json!({"metadata": {"name": "n", "labels": labels}});
        Some(Arc::new(crate::testing::typed(value)))
    };
    let selects = json!({"namespaceSelector": {"matchLabels": {"team": "x"}}});
    let near = app("p", "web", required("podAffinity", &[term(ZONE, "db", selects)]));
    let change = |old: Value, new: Value| Object::Namespace((namespace(old), namespace(new)));
    assert!(helps(&near, Action::UPDATE, change(json!({}), json!({"team": "x"}))));
    assert!(helps(&near, Action::UPDATE, change(json!({"team": "x"}), json!({}))));
    assert!(!helps(&near, Action::UPDATE, change(json!({}), json!({"other": "x"}))));
}
