//! Upstream's cases on custom resources and their definitions.

use std::time::Duration;

use serde_json::{Value, json};

use super::{bad_data, create, mutate, refused, validate, webhook, world};
use crate::harness::World;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const V1: &str = "/apis/example.com/v1/namespaces/default/things";
const V2: &str = "/apis/example.com/v2/namespaces/default/things";

fn version(name: &str, is_stored: bool, schema: &Value) -> Value {
    json!({"name": name, "served": true, "storage": is_stored, "schema": {"openAPIV3Schema": schema}})
}

fn open_schema() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

async fn define(world: &World, schema: &Value) {
    let definition = json!({
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
            "versions": [version("v1", true, schema), version("v2", false, schema)],
        },
    });
    world.make(DEFINITIONS, &definition).await;
    let served = async {
        while world.ask("GET", V1, &Value::Null).await.code == 404 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), served).await.expect("served");
}

fn thing(version: &str, data: &Value) -> Value {
    json!({"apiVersion": format!("example.com/{version}"), "kind": "Thing",
        "metadata": {"name": "a"}, "data": data})
}

#[tokio::test]
async fn custom_resources_are_denied() {
    let (world, hook) = world().await;
    define(&world, &open_schema()).await;
    let operations = ["CREATE", "UPDATE", "DELETE"];
    validate(&world, webhook(&hook, "/custom-resource", &operations, "example.com/v1/things"))
        .await;
    let text = "the configmap contains unwanted key and value";
    refused(&create(&world, V1, &thing("v1", &bad_data())).await, text);
    let path = format!("{V1}/a");
    world.make(V1, &thing("v1", &json!({"ok": "yes"}))).await;
    let patch = json!({"data": bad_data()});
    refused(&world.ask_by(&world.admin, ("PATCH", &path), &patch).await, text);
    // What is there may not go, until it is no longer what the webhook objects to.
    let configuration =
        "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/test";
    let stored = world.ask("GET", configuration, &Value::Null).await.json();
    world.ask("DELETE", configuration, &Value::Null).await;
    world.set(&path, &patch).await;
    validate(&world, stored["webhooks"][0].clone()).await;
    refused(&world.ask("DELETE", &path, &Value::Null).await, text);
    refused(&world.ask("DELETE", V1, &Value::Null).await, text);
    world.set(&path, &json!({"data": {"webhook-e2e-test": "allowed"}})).await;
    assert_eq!(world.ask("DELETE", &path, &Value::Null).await.code, 200);
}

#[tokio::test]
async fn custom_resources_are_mutated_and_pruned() {
    let known = json!({"type": "object", "properties": {"data": {"type": "object", "properties": {
        "mutation-start": {"type": "string"}, "mutation-stage-1": {"type": "string"}}}}});
    for (schema, keeps_all) in [(open_schema(), true), (known, false)] {
        let (world, hook) = world().await;
        define(&world, &schema).await;
        let stage =
            |path: &str| webhook(&hook, path, &["CREATE", "UPDATE"], "example.com/v1/things");
        mutate(&world, &[stage("/stage-1"), stage("/stage-2")]).await;
        let made = world.make(V1, &thing("v1", &json!({"mutation-start": "yes"}))).await;
        let mut expected = json!({"mutation-start": "yes", "mutation-stage-1": "yes"});
        if keeps_all {
            expected["mutation-stage-2"] = "yes".into();
        }
        assert_eq!(made["data"], expected);
        assert_eq!(hook.take_seen().len(), 2);
    }
}

#[tokio::test]
async fn a_webhook_sees_the_version_of_its_rule_whatever_is_stored() {
    let (world, hook) = world().await;
    define(&world, &open_schema()).await;
    mutate(&world, &[webhook(&hook, "/stage-1", &["CREATE", "UPDATE"], "example.com/v1/things")])
        .await;
    world.make(V1, &thing("v1", &json!({}))).await;
    let storage = json!({"spec": {"versions": [
        version("v1", false, &open_schema()), version("v2", true, &open_schema())]}});
    world.set(&format!("{DEFINITIONS}/things.example.com"), &storage).await;
    hook.take_seen();
    let patched = world.set(&format!("{V2}/a"), &json!({"data": {"mutation-start": "yes"}})).await;
    assert_eq!(patched["data"], json!({"mutation-start": "yes", "mutation-stage-1": "yes"}));
    assert_eq!(patched["apiVersion"], "example.com/v2");
    let asked = hook.take_seen();
    let request = &asked[0].review["request"];
    assert_eq!(request["resource"]["version"], "v1");
    assert_eq!(request["requestResource"]["version"], "v2");
    assert_eq!(request["object"]["apiVersion"], "example.com/v1");
    assert_eq!(request["oldObject"]["apiVersion"], "example.com/v1");
}

#[tokio::test]
async fn definitions_are_denied() {
    let (world, hook) = world().await;
    let rule = "apiextensions.k8s.io/*/customresourcedefinitions";
    validate(&world, webhook(&hook, "/crd", &["CREATE"], rule)).await;
    let definition = json!({"metadata": {"name": "things.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": [version("v1", true, &open_schema())]}});
    refused(&create(&world, DEFINITIONS, &definition).await, "the crd contains unwanted label");
}
