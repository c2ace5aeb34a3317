//! The graph's looks and the verdicts.

use std::sync::Arc;

use api::Object;
use serde_json::{Value, json};

use super::graph::Graph;
use super::plan::{Fate, Verdict, verdict, without_blocking, without_finalizer};
use crate::discovery::ApiResource;

fn resource() -> Arc<ApiResource> {
    Arc::new(ApiResource {
        group: String::new(),
        version: "v1".into(),
        name: "pods".into(),
        kind: "Pod".into(),
        namespaced: true,
        verbs: Vec::new(),
    })
}

fn object(uid: &str, owners: &[&str], finalizers: &[&str]) -> Object {
    let owners: Vec<Value> = owners
        .iter()
        .map(|uid| json!({"apiVersion": "v1", "kind": "Pod", "name": uid, "uid": uid}))
        .collect();
    let ending = (!finalizers.is_empty()).then_some("2020-01-01T00:00:00Z");
    Object::new(
        &json!({"metadata": {"name": uid, "namespace": "n", "uid": uid, "ownerReferences": owners,
            "finalizers": finalizers, "deletionTimestamp": ending}}),
        1,
        &[],
    )
}

#[test]
fn dependents_look_when_the_owner_goes() {
    let (mut graph, kind) = (Graph::default(), resource());
    assert_eq!(graph.put(&kind, &object("dep", &["own"], &[])), ["dep"]);
    assert!(graph.put(&kind, &object("own", &[], &[])).is_empty());
    // Nothing that concerns owners: no look at all.
    assert!(graph.put(&kind, &object("dep", &["own"], &[])).is_empty());
    assert_eq!(graph.remove("own"), ["dep"]);
    assert_eq!(graph.suspects(), ["dep"]);
}

#[test]
fn a_foreground_owner_looks_when_its_last_dependent_is_gone() {
    let (mut graph, kind) = (Graph::default(), resource());
    graph.put(&kind, &object("own", &[], &[]));
    graph.put(&kind, &object("dep", &["own"], &[]));
    let look = graph.put(&kind, &object("own", &[], &["foregroundDeletion"]));
    assert_eq!(look, ["dep", "own"]);
    assert_eq!(graph.remove("dep"), ["own"]);
}

#[test]
fn verdicts() {
    let live = json!({"metadata": {"uid": "u", "resourceVersion": "5",
        "ownerReferences": [{"uid": "a"}, {"uid": "b"}]}});
    assert_eq!(verdict(&live, &[], false), Verdict::Keep);
    assert_eq!(verdict(&live, &[Fate::Solid, Fate::Solid], false), Verdict::Keep);
    let keeping = Verdict::Keeping(vec![json!({"uid": "a"})]);
    assert_eq!(verdict(&live, &[Fate::Solid, Fate::Dangling], false), keeping);
    let gone = [Fate::Dangling, Fate::Dangling];
    assert_eq!(verdict(&live, &gone, true), Verdict::Delete("Background"));
    let waiting = [Fate::Waiting, Fate::Dangling];
    assert_eq!(verdict(&live, &waiting, true), Verdict::Delete("Foreground"));
}

#[test]
fn owners_are_told_not_to_wait() {
    let live = json!({"metadata": {"uid": "u", "resourceVersion": "5", "ownerReferences": [
        {"uid": "a", "blockOwnerDeletion": true}, {"uid": "b"}]}});
    let patch = without_blocking(&live).unwrap();
    let owners = json!([{"uid": "a", "blockOwnerDeletion": false}, {"uid": "b"}]);
    assert_eq!(patch["metadata"]["ownerReferences"], owners);
    let free = json!({"metadata": {"ownerReferences": [{"uid": "b"}]}});
    assert_eq!(without_blocking(&free), None);
}

#[test]
fn a_finalizer_is_taken_off_alone() {
    let live = json!({"metadata": {"uid": "u", "resourceVersion": "5",
        "finalizers": ["orphan", "x"]}});
    let patch = without_finalizer(&live, "orphan").unwrap();
    assert_eq!(patch["metadata"]["finalizers"], json!(["x"]));
    assert_eq!(without_finalizer(&live, "foregroundDeletion"), None);
}
