//! Type checking of admission policies: server and controller together, as upstream's e2e test `should type
//! check validation expressions` and `should type check a CRD`.

use std::sync::Arc;

use apiserver::{Local, User};
use client::{Client, Informers, Tasks};
use serde_json::{Value, json};

use crate::harness::World;

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";

/// A world in which the controller runs until the tasks end.
async fn checked_world() -> (World, Tasks) {
    let world = World::new().await;
    let tasks = Tasks::new();
    let masters = User::system_masters("controllers");
    let local = Local::new(world.server.clone(), masters, "controllers", tasks.clone());
    let informers = Informers::new(Client::new(Arc::new(local)), tasks.clone());
    let only = vec!["validatingadmissionpolicy-status".to_owned()];
    let config = controllers::Config { controllers: only, ..controllers::Config::default() };
    controllers::run(&informers, &tasks, config).expect("a known name");
    (world, tasks)
}

async fn make(world: &World, name: &str, (group, resource): (&str, &str), spec: Value) {
    let mut spec = spec;
    spec["matchConstraints"] = json!({"resourceRules": [{"operations": ["CREATE"], "apiGroups": [group],
        "apiVersions": ["v1"], "resources": [resource]}]});
    world.make(POLICIES, &json!({"metadata": {"name": name}, "spec": spec})).await;
}

/// The result of the check of a generation.
async fn checked(world: &World, name: &str, generation: i64) -> Value {
    let path = format!("{POLICIES}?watch=true&fieldSelector=metadata.name%3D{name}");
    let done = |_: &str, policy: &Value| policy["status"]["observedGeneration"] == generation;
    world.until(&path, done).await["status"]["typeChecking"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_type_check_validation_expressions() {
    let (world, tasks) = checked_world().await;
    let deployments = ("apps", "deployments");
    let right = json!({"validations": [{"expression": "object.spec.replicas > 1"}]});
    make(&world, "right", deployments, right).await;
    assert_eq!(checked(&world, "right", 1).await, json!({}));
    let wrong = json!({"validations": [
        {"expression": "object.spec.replicas > '1'"},
        {"expression": "true", "messageExpression": "string(object.spec.maxRetries)"},
    ]});
    world.set(&format!("{POLICIES}/right"), &json!({"spec": wrong})).await;
    let found = checked(&world, "right", 2).await;
    let warnings = found["expressionWarnings"].as_array().expect("warnings");
    assert_eq!(warnings.len(), 2, "{found}");
    let of = |at: usize| {
        let text = |key: &str| warnings[at][key].as_str().unwrap_or("").to_owned();
        (text("fieldRef"), text("warning"))
    };
    let (field, warning) = of(0);
    assert_eq!(field, "spec.validations[0].expression");
    let want = "apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'";
    assert!(warning.starts_with(want), "{warning}");
    let (field, warning) = of(1);
    assert_eq!(field, "spec.validations[1].messageExpression");
    assert!(warning.contains("undefined field 'maxRetries'"), "{warning}");
    tasks.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_type_check_a_custom_resource() {
    let (world, tasks) = checked_world().await;
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"size": {"type": "integer"}, "any": {"x-kubernetes-preserve-unknown-fields": true}}}}}});
    let definition = json!({"metadata": {"name": "gizmos.e.com"}, "spec": {"group": "e.com", "scope": "Namespaced",
        "names": {"plural": "gizmos", "singular": "gizmo", "kind": "Gizmo", "listKind": "GizmoList"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    world.make(definitions, &definition).await;
    let established = |_: &str, definition: &Value| {
        let conditions = definition["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True")
    };
    world.until(&format!("{definitions}?watch=true"), established).await;
    let spec = json!({"validations": [
        {"expression": "object.spec.size > 1 && object.metadata.labels['a'] == 'b'"},
        {"expression": "object.spec.size == '1'"},
    ]});
    make(&world, "gizmos", ("e.com", "gizmos"), spec).await;
    let found = checked(&world, "gizmos", 1).await;
    let warnings = found["expressionWarnings"].as_array().expect("warnings");
    assert_eq!(warnings.len(), 1, "{found}");
    let warning = warnings[0]["warning"].as_str().unwrap_or("");
    assert!(warning.starts_with("e.com/v1, Kind=Gizmo: ERROR: <input>:1:18: "), "{warning}");
    tasks.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_served_is_not_checked() {
    let (world, tasks) = checked_world().await;
    let spec = json!({"validations": [{"expression": "object.spec.nothing == 1"}],
        "paramKind": {"apiVersion": "unknown.io/v1", "kind": "Nope"}});
    make(&world, "unserved", ("unknown.io", "nopes"), spec).await;
    assert_eq!(checked(&world, "unserved", 1).await, json!({}));
    tasks.cancel();
}
