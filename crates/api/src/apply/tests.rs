//! What managers own after updates and applies, as upstream records it.

use serde_json::{Value, json};

use super::*;
use crate::registry::Registry;
use crate::schema::{Schema, Shape};

const NOW: &str = "2026-01-02T03:04:05Z";
const LATER: &str = "2026-01-02T03:04:06Z";

fn shape_of(kind: &str) -> Shape {
    Shape::Struct(Schema::built_in().find(kind).expect("a known kind"))
}

/// Runs `run` for deployments.
fn with<T>(shape: &Shape, now: &str, run: impl FnOnce(&Manage<'_>) -> T) -> T {
    let filter = Filter::Except(FieldSet::of_fields(&["status"]));
    let is_served =
        |version: &str| Registry::built_in().rows().iter().any(|r| r.api_version() == version);
    run(&Manage {
        schema: Schema::built_in(),
        shape,
        api_version: "apps/v1",
        subresource: "",
        filter: &filter,
        is_served: &is_served,
        elsewhere: None,
        now: Some(now),
    })
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "labels": {"a": "b"}},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "x"}},
            "strategy": {},
            "template": {"metadata": {}, "spec": {"containers": [
                {"name": "app", "image": "i", "resources": {},
                 "ports": [{"containerPort": 80, "protocol": "TCP"}]},
            ]}},
        },
        "status": {"replicas": 3},
    })
}

fn created(manager: &str) -> (Value, Managers) {
    let shape = shape_of("apps.v1.Deployment");
    let zero = Schema::built_in().zero(&shape);
    let mut object = deployment();
    let managers = with(&shape, NOW, |m| {
        m.update(&zero, &object, Managers::default(), manager).expect("an update")
    });
    object["metadata"]["uid"] = "u".into();
    (object, managers)
}

fn apply(
    live: &Value,
    applied: &Value,
    managers: &Managers,
    by: &str,
    force: bool,
) -> Result<(Option<Value>, Managers), ApplyError> {
    with(&shape_of("apps.v1.Deployment"), LATER, |m| {
        m.apply(live, applied, managers.clone(), by, force)
    })
}

fn applied(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
}

fn fields_of(managers: &Managers, manager: &str) -> Value {
    let found = managers.entries.iter().find(|(i, _)| i.manager == manager);
    found.map_or(Value::Null, |(_, entry)| entry.fields.clone().into_json())
}

#[test]
fn a_creation_owns_what_was_sent_without_the_always_printed_and_the_status() {
    let (_, managers) = created("me");
    let want = json!([{
        "manager": "me", "operation": "Update", "apiVersion": "apps/v1", "time": NOW,
        "fieldsType": "FieldsV1",
        "fieldsV1": {
            "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
            "f:spec": {
                "f:replicas": {}, "f:selector": {},
                "f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"app\"}": {
                    ".": {}, "f:image": {}, "f:name": {}, "f:resources": {},
                    "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {
                        ".": {}, "f:containerPort": {}, "f:protocol": {}}},
                }}}},
            },
        },
    }]);
    assert_eq!(managers.encode(), Some(want));
}

#[test]
fn an_update_takes_what_it_changes_from_others() {
    let shape = shape_of("apps.v1.Deployment");
    let (old, managers) = created("me");
    let mut new = old.clone();
    new["spec"]["replicas"] = 5.into();
    new["metadata"]["labels"] = json!({"c": "d"});
    let managers =
        with(&shape, LATER, |m| m.update(&old, &new, managers, "you").expect("an update"));
    let want = json!({"f:metadata": {"f:labels": {"f:c": {}}}, "f:spec": {"f:replicas": {}}});
    assert_eq!(fields_of(&managers, "you"), want);
    assert_eq!(fields_of(&managers, "me")["f:metadata"], json!({"f:labels": {}}));
    let again =
        with(&shape, "2030-01-01T00:00:00Z", |m| m.update(&new, &new, managers.clone(), "us"));
    assert_eq!(again, Ok(managers));
}

#[test]
fn an_untracked_object_stays_so_until_something_is_applied() {
    let shape = shape_of("apps.v1.Deployment");
    let (old, _) = created("me");
    let mut new = old.clone();
    new["spec"]["replicas"] = 5.into();
    let updated = with(&shape, NOW, |m| m.update(&old, &new, Managers::default(), "you"));
    assert_eq!(updated, Ok(Managers::default()));
    let (_, managers) =
        apply(&old, &applied(json!({"paused": true})), &Managers::default(), "a", false)
            .expect("no conflict");
    assert_eq!(fields_of(&managers, "a"), json!({"f:spec": {"f:paused": {}}}));
    assert!(fields_of(&managers, "before-first-apply")["f:spec"].get("f:replicas").is_some());
}

#[test]
fn conflicts_name_the_manager_and_the_path_and_force_wins() {
    let (live, managers) = created("upd");
    let config = applied(json!({"replicas": 2}));
    let Err(ApplyError::Conflicts(conflicts)) = apply(&live, &config, &managers, "a", false) else {
        panic!("no conflict");
    };
    let shown: Vec<String> =
        conflicts.iter().map(|c| format!("{}: {}", c.manager, c.path)).collect();
    assert_eq!(shown, ["\"upd\" using apps/v1: .spec.replicas"]);
    let (new, managers) = apply(&live, &config, &managers, "a", true).expect("forced");
    assert_eq!(new.map(|n| n["spec"]["replicas"].clone()), Some(2.into()));
    assert_eq!(fields_of(&managers, "a"), json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(fields_of(&managers, "upd")["f:spec"].get("f:replicas"), None);
}

#[test]
fn fields_no_longer_applied_go_unless_others_own_them() {
    let (live, managers) = created("upd");
    let env = |names: &[&str]| {
        let env: Vec<Value> = names.iter().map(|n| json!({"name": n, "value": "1"})).collect();
        applied(json!({"template": {"spec": {"containers": [{"name": "app", "env": env}]}}}))
    };
    let step = |live: &Value, managers: &Managers, names: &[&str], by: &str| {
        let (new, managers) = apply(live, &env(names), managers, by, false).expect("no conflict");
        (new.unwrap_or_else(|| live.clone()), managers)
    };
    let names = |object: &Value| {
        let list = object["spec"]["template"]["spec"]["containers"][0]["env"].as_array().cloned();
        list.unwrap_or_default().iter().map(|e| e["name"].clone()).collect::<Vec<_>>()
    };
    let (live, managers) = step(&live, &managers, &["A", "B"], "one");
    let (live, managers) = step(&live, &managers, &["B", "C"], "two");
    assert_eq!(names(&live), ["A", "B", "C"]);
    let (live, managers) = step(&live, &managers, &[], "one");
    assert_eq!(names(&live), ["B", "C"]);
    assert_eq!(live["spec"]["template"]["spec"]["containers"][0]["image"], "i");
    let want = json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"app\"}": {".": {}, "f:name": {}}}}}}});
    assert_eq!(fields_of(&managers, "one"), want);
}

#[test]
fn applying_the_same_again_changes_nothing() {
    let (live, managers) = created("upd");
    let config = applied(json!({"paused": true}));
    let (new, managers) = apply(&live, &config, &managers, "a", false).expect("no conflict");
    let again = apply(&new.expect("a change"), &config, &managers, "a", false).expect("none");
    assert_eq!(again, (None, managers));
}

#[test]
fn what_does_not_fit_the_schema_is_named() {
    let (live, managers) = created("upd");
    let bad = applied(json!({"replicas": "x", "foo": 1, "template": {"spec": {"containers": [
        {"name": "a"}, {"name": "a"}]}}}));
    let Err(ApplyError::Untyped(faults)) = apply(&live, &bad, &managers, "a", false) else {
        panic!("it passed");
    };
    assert_eq!(faults, [".spec.foo: field not declared in schema"]);
    let bad = applied(json!({"replicas": "x", "template": {"spec": {"containers": [
        {"name": "a"}, {"name": "a"}]}}}));
    let Err(ApplyError::Untyped(faults)) = apply(&live, &bad, &managers, "a", false) else {
        panic!("it passed");
    };
    let want = [
        ".spec.replicas: expected numeric (int or float), got string",
        ".spec.template.spec.containers: duplicate entries for key [name=\"a\"]",
    ];
    assert_eq!(faults, want);
}

#[test]
fn the_oldest_of_many_updaters_are_merged() {
    let entry = |at: usize| {
        json!({"manager": format!("m{at:02}"), "operation": "Update", "apiVersion": "v1",
            "time": format!("2026-01-01T00:00:{at:02}Z"), "fieldsType": "FieldsV1",
            "fieldsV1": {format!("f:f{at:02}"): {}}})
    };
    let mut managers =
        Managers::decode(&(0..13).map(entry).collect::<Value>()).expect("valid entries");
    managers.cap();
    assert_eq!(managers.entries.len(), 10);
    let want = json!({"f:f00": {}, "f:f01": {}, "f:f02": {}, "f:f03": {}});
    assert_eq!(fields_of(&managers, "ancient-changes"), want);
}

#[test]
fn applies_come_first_then_the_older() {
    let entry = |manager: &str, operation: &str, time: &str| {
        json!({"manager": manager, "operation": operation, "apiVersion": "v1", "time": time,
            "fieldsType": "FieldsV1", "fieldsV1": {"f:x": {}}})
    };
    let want =
        json!([entry("z", "Apply", LATER), entry("b", "Update", NOW), entry("a", "Update", LATER)]);
    let shuffled = json!([want[2], want[0], want[1]]);
    assert_eq!(Managers::decode(&shuffled).and_then(|m| m.encode()), Some(want));
    assert_eq!(Managers::decode(&json!([{"manager": "x"}])), None);
    assert!(is_reset(&json!([{}])) && is_reset(&json!([])) && !is_reset(&Value::Null));
}

#[test]
fn sets_read_and_write_as_fields_v1() {
    let json = json!({
        "f:spec": {".": {}, "f:a": {}, "k:{\"name\":\"<x>\",\"port\":1}": {"f:y": {}}},
        "f:list": {"v:\"one\"": {}, "i:3": {}},
    });
    let set = FieldSet::from_json(&json);
    let mut escaped = json.clone();
    let spec = escaped["f:spec"].as_object_mut().expect("a map");
    let below = spec.remove("k:{\"name\":\"<x>\",\"port\":1}").expect("just written");
    spec.insert("k:{\"name\":\"\\u003cx\\u003e\",\"port\":1}".into(), below);
    assert_eq!(set.to_json(), escaped);
    assert_eq!(FieldSet::from_json(&escaped), set);
    let paths: Vec<String> = set.paths().iter().map(ToString::to_string).collect();
    let want = [".spec", ".list[=\"one\"]", ".list[3]", ".spec.a", ".spec[name=\"<x>\",port=1].y"];
    assert_eq!(paths, want);
    assert_eq!(set.clone().difference(&set), FieldSet::new());
    assert_eq!(set.clone().union(set.clone()).intersection(&set), set);
    assert_eq!(set.leaves().paths().len(), 4);
    let mut without_spec = set.clone();
    without_spec.subtract_below(&FieldSet::of_fields(&["spec"]));
    assert_eq!(without_spec.paths().len(), 2);
}

#[test]
fn merged_lists_keep_the_applied_order() {
    let schema = Schema::built_in();
    let shape = shape_of("core.v1.PodSpec");
    let names = |list: &[&str]| {
        let items: Vec<Value> = list.iter().map(|n| json!({"name": n})).collect();
        json!({"containers": items})
    };
    let merged = |live: &[&str], applied: &[&str]| {
        let (live, applied) = (names(live), names(applied));
        let made = merge(schema, Node::root(&shape), Some(&live), Some(&applied)).expect("lists");
        let made = made.unwrap_or_default();
        let items = made["containers"].as_array().cloned().unwrap_or_default();
        items.iter().filter_map(|i| i["name"].as_str().map(String::from)).collect::<String>()
    };
    assert_eq!(merged(&["a", "b", "c"], &["c", "a"]), "bca");
    assert_eq!(merged(&["a", "b", "c"], &["d", "b"]), "adbc");
    assert_eq!(merged(&["a", "b"], &["b", "c"]), "abc");
    assert_eq!(merged(&[], &["x", "y"]), "xy");
}
