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

/// One operation on `{"m": {"a": 1, "n": null}, "l": [1, 2, 3]}`.
fn patched(operation: Value) -> Result<Value, String> {
    let target = json!({"m": {"a": 1, "n": null}, "l": [1, 2, 3]});
    json_patched(target, &json!([operation]))
}

fn list_after(operation: Value) -> Value {
    patched(operation).expect("applies")["l"].clone()
}

#[test]
fn json_patch_takes_negative_indices() {
    let add = |at: &str| json!({"op": "add", "path": format!("/l/{at}"), "value": 9});
    assert_eq!(list_after(add("-1")), json!([1, 2, 3, 9]));
    assert_eq!(list_after(add("-4")), json!([9, 1, 2, 3]));
    assert_eq!(list_after(add("3")), json!([1, 2, 3, 9]));
    assert_eq!(list_after(add("+1")), json!([1, 9, 2, 3]));
    assert!(patched(add("-5")).is_err());
    assert!(patched(add("4")).is_err());
    assert!(patched(add("x")).is_err());
    let replace = |at: &str| json!({"op": "replace", "path": format!("/l/{at}"), "value": 9});
    assert_eq!(list_after(replace("-1")), json!([1, 2, 9]));
    assert!(["-4", "3", "-", ""].iter().all(|at| patched(replace(at)).is_err()));
    let remove = |at: &str| json!({"op": "remove", "path": format!("/l/{at}")});
    assert_eq!(list_after(remove("-3")), json!([2, 3]));
    assert!(["-4", "3", "-"].iter().all(|at| patched(remove(at)).is_err()));
    let moved = json!({"op": "move", "from": "/l/-1", "path": "/l/0"});
    assert_eq!(list_after(moved), json!([3, 1, 2]));
    assert!(patched(json!({"op": "test", "path": "/l/-1", "value": 3})).is_ok());
    assert!(patched(json!({"op": "test", "path": "/l/-4", "value": 3})).is_err());
    let copied = json!({"op": "copy", "from": "/l/-3", "path": "/l/-"});
    assert_eq!(list_after(copied), json!([1, 2, 3, 1]));
}

#[test]
fn json_patch_takes_keys_that_maps_lack() {
    let replaced = patched(json!({"op": "replace", "path": "/m/b", "value": 2}));
    assert_eq!(replaced.expect("applies")["m"], json!({"a": 1, "b": 2, "n": null}));
    let copied = patched(json!({"op": "copy", "from": "/m/none", "path": "/m/b"}));
    assert_eq!(copied.expect("applies")["m"]["b"], Value::Null);
    for absent in ["/m/none", "/m/n"] {
        assert!(patched(json!({"op": "test", "path": absent, "value": null})).is_ok());
        assert!(patched(json!({"op": "test", "path": absent})).is_ok());
        assert!(patched(json!({"op": "test", "path": absent, "value": 1})).is_err());
    }
    assert!(patched(json!({"op": "remove", "path": "/m/none"})).is_err());
    assert!(patched(json!({"op": "move", "from": "/m/none", "path": "/m/b"})).is_err());
    for op in ["add", "replace", "test", "remove"] {
        let below = |path: &str| patched(json!({"op": op, "path": path, "value": 1}));
        assert!(["/none/x", "/m/a/x", "/m/n/x", "/l/9/x"].iter().all(|path| below(path).is_err()));
    }
}

#[test]
fn json_patch_of_the_whole_document() {
    let whole = |op: &str, value: Value| patched(json!({"op": op, "path": "", "value": value}));
    assert_eq!(whole("replace", json!({"b": 1})), Ok(json!({"b": 1})));
    assert!(whole("replace", json!("text")).is_err());
    assert!(whole("replace", Value::Null).is_err());
    assert!(whole("add", json!({})).is_err());
    assert!(whole("remove", Value::Null).is_err());
    assert!(whole("test", json!({"m": {"a": 1, "n": null}, "l": [1, 2, 3]})).is_ok());
    assert!(whole("test", json!({})).is_err());
    // A path without a slash names nothing, one with a slash is read from there.
    assert!(patched(json!({"op": "add", "path": "m", "value": 1})).is_err());
    let odd = patched(json!({"op": "add", "path": "x/m", "value": 1}));
    assert_eq!(odd.expect("applies")["m"], 1);
    let empty = patched(json!({"op": "add", "path": "/", "value": 1}));
    assert_eq!(empty.expect("applies")[""], 1);
}

#[test]
fn json_patch_operations_are_complete() {
    for operation in [
        json!({"path": "/m/a"}),
        json!({"op": 1, "path": "/m/a"}),
        json!({"op": "add", "value": 1}),
        json!({"op": "add", "path": 1, "value": 1}),
        json!({"op": "move", "path": "/m/b"}),
        json!({"op": "copy", "from": "/m/a"}),
        json!({"op": "other", "path": "/m/a"}),
    ] {
        assert!(patched(operation.clone()).is_err(), "{operation}");
    }
    let unset = patched(json!({"op": "add", "path": "/m/b"}));
    assert_eq!(unset.expect("applies")["m"]["b"], Value::Null);
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
