//! Patches, one table a kind.

use serde_json::{Value, json};

use super::*;
use crate::schema::{Schema, Shape};

fn strategic(ty: &str, mut target: Value, patch: Value) -> Value {
    let schema = Schema::built_in();
    let shape = Shape::Struct(schema.find(ty).expect("a known type"));
    apply_strategic_patch(schema, &shape, &mut target, &patch).expect("applies");
    target
}

#[test]
fn containers_merge_by_name() {
    let pod = json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]});
    let patch = json!({"containers": [{"name": "b", "image": "2"}, {"name": "c"}]});
    let patched = strategic("core.v1.PodSpec", pod, patch);
    assert_eq!(
        patched,
        json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}, {"name": "c"}]})
    );
}

#[test]
fn what_a_patch_names_comes_before_what_it_does_not_know_the_place_of() {
    let env = |names: &[&str]| {
        let all: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        json!({"env": all})
    };
    let patched =
        |before: &[&str], patch: &[&str]| strategic("core.v1.Container", env(before), env(patch));
    assert_eq!(patched(&["a", "b", "c"], &["a", "new"]), env(&["a", "new", "b", "c"]));
    assert_eq!(patched(&["a"], &["new"]), env(&["new", "a"]));
    assert_eq!(patched(&["a", "b", "c"], &["c", "a"]), env(&["b", "c", "a"]));
}

#[test]
fn directives_delete_replace_and_order() {
    let pod = json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}]});
    let patch = json!({
        "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
        "containers": [{"name": "b", "$patch": "delete"}],
    });
    let patched = strategic("core.v1.PodSpec", pod, patch);
    assert_eq!(patched, json!({"containers": [{"name": "c"}, {"name": "a"}]}));
    let patch = json!({"containers": [{"$patch": "replace"}, {"name": "z"}]});
    let pod = json!({"containers": [{"name": "a"}]});
    assert_eq!(strategic("core.v1.PodSpec", pod, patch), json!({"containers": [{"name": "z"}]}));
}

#[test]
fn finalizers_merge_and_are_deleted_by_value() {
    let meta = json!({"finalizers": ["a", "b"], "labels": {"x": "1", "y": "2"}});
    let patch = json!({"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"], "labels": {"x": null}});
    let patched = strategic("meta.v1.ObjectMeta", meta, patch);
    assert_eq!(patched, json!({"finalizers": ["c", "b"], "labels": {"y": "2"}}));
}

#[test]
fn retained_keys_drop_the_others() {
    let strategy = json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}});
    let patch = json!({"strategy": {"$retainKeys": ["type"], "type": "Recreate"}});
    let patched = strategic("apps.v1.DeploymentSpec", strategy, patch);
    assert_eq!(patched, json!({"strategy": {"type": "Recreate"}}));
}

#[test]
fn json_patch_operations() {
    let mut doc = json!({"a": {"b": [1, 2]}, "c/d": 1});
    let patch = json!([
        {"op": "test", "path": "/a/b/0", "value": 1},
        {"op": "add", "path": "/a/b/-", "value": 3},
        {"op": "remove", "path": "/a/b/0"},
        {"op": "replace", "path": "/c~1d", "value": 2},
        {"op": "copy", "from": "/a/b", "path": "/e"},
        {"op": "move", "from": "/c~1d", "path": "/f"},
    ]);
    apply_json_patch(&mut doc, &patch).expect("applies");
    assert_eq!(doc, json!({"a": {"b": [2, 3]}, "e": [2, 3], "f": 2}));
    assert!(apply_json_patch(&mut doc, &json!([{"op": "remove", "path": "/none"}])).is_err());
}

#[test]
fn merge_patch_removes_by_null() {
    let mut doc = json!({"a": {"b": 1, "c": 2}, "d": [1]});
    apply_merge_patch(&mut doc, &json!({"a": {"b": null, "e": {"f": null}}, "d": [2]}));
    assert_eq!(doc, json!({"a": {"c": 2, "e": {}}, "d": [2]}));
}

fn json_patched(mut target: Value, patch: &Value) -> Result<Value, String> {
    apply_json_patch(&mut target, patch).map(|()| target)
}

#[test]
fn copies_have_a_budget() {
    let copies: Vec<Value> =
        (0..30).map(|_| json!({"op": "copy", "from": "/a", "path": "/a/-"})).collect();
    let fault = json_patched(json!({"a": ["x"]}), &copies.into()).expect_err("doubles");
    assert!(fault.starts_with("Unable to complete the copy, the accumulated size increase"));
    assert!(fault.ends_with("exceeding the limit 3145728"), "{fault}");
}

#[test]
fn additions_do_not_deepen_without_end() {
    // Each operation adds a level, or a hundred.
    let add =
        |n: usize, value: Value| json!({"op": "add", "path": "/a".repeat(n + 1), "value": value});
    let small: Vec<Value> = (0..500).map(|n| add(n, json!({}))).collect();
    assert_eq!(json_patched(json!({}), &small.into()), Err("exceeded max depth".to_owned()));
    let nested = (0..100).fold(json!({}), |below, _| json!({"a": below}));
    let large = [add(0, nested.clone()), add(100, nested)];
    let applied = json_patched(json!({}), &json!(large));
    assert_eq!(applied, Err("exceeded max depth".to_owned()));
    let moved = json!([
        {"op": "copy", "from": "/a", "path": "/b"},
        {"op": "move", "from": "/b", "path": format!("/a{}/x", "/a".repeat(50))},
    ]);
    let nested = (0..100).fold(json!({}), |below, _| json!({"a": below}));
    assert_eq!(json_patched(json!({"a": nested}), &moved), Err("exceeded max depth".to_owned()));
}

#[test]
fn work_at_the_head_of_long_lists_has_a_budget() {
    let list = json!({"l": vec![0; 100_000]});
    let moves = vec![json!({"op": "move", "from": "/l/0", "path": "/l/-"}); 9_000];
    assert_eq!(
        json_patched(list, &moves.into()),
        Err("the patch moves too many values".to_owned())
    );
}

#[test]
fn long_lists_merge_in_linear_time() {
    // With a search for each item this takes minutes.
    let env = |from: usize| -> Vec<Value> {
        (from..from + 50_000).map(|n| json!({"name": format!("v{n}"), "value": "x"})).collect()
    };
    let patched =
        strategic("core.v1.Container", json!({"env": env(0)}), json!({"env": env(25_000)}));
    assert_eq!(patched["env"].as_array().map(Vec::len), Some(75_000));
    let gone: Vec<Value> =
        (0..50_000).map(|n| json!({"name": format!("v{n}"), "$patch": "delete"})).collect();
    let emptied = strategic("core.v1.Container", json!({"env": env(0)}), json!({"env": gone}));
    assert_eq!(emptied, json!({"env": []}));
}
