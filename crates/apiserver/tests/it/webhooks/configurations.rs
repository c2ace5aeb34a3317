//! Upstream's cases on configurations that change, and on match conditions.

use serde_json::{Value, json};

use super::{
    CONFIG_MAPS, GROUP, bad_data, config_map, create, mutate, refused, register, validate, webhook,
    with, world,
};
use crate::harness::World;

fn path(kind: &str) -> String {
    format!("{GROUP}/{kind}webhookconfigurations/test")
}

async fn set_operations(world: &World, kind: &str, operations: &[&str]) {
    let mut stored = world.ask("GET", &path(kind), &Value::Null).await.json();
    stored["webhooks"][0]["rules"][0]["operations"] = json!(operations);
    assert_eq!(world.ask("PUT", &path(kind), &stored).await.code, 200);
}

#[tokio::test]
async fn a_changed_validating_configuration_counts_at_once() {
    let (world, hook) = world().await;
    validate(&world, webhook(&hook, "/configmaps", &["CREATE"], "/v1/configmaps")).await;
    let bad = config_map("a", bad_data());
    refused(&create(&world, CONFIG_MAPS, &bad).await, "denied the request");
    set_operations(&world, "validating", &["UPDATE"]).await;
    world.make(CONFIG_MAPS, &bad).await;
    let patch =
        json!([{"op": "replace", "path": "/webhooks/0/rules/0/operations", "value": ["CREATE"]}]);
    let kind = [("content-type", "application/json-patch+json")];
    let path = path("validating");
    let patched = world.ask_as(&world.admin, ("PATCH", &path), &kind, patch.to_string()).await;
    assert_eq!(patched.code, 200);
    refused(&create(&world, CONFIG_MAPS, &config_map("b", bad_data())).await, "denied the request");
}

#[tokio::test]
async fn a_changed_mutating_configuration_counts_at_once() {
    let (world, hook) = world().await;
    mutate(&world, &[webhook(&hook, "/stage-1", &["CREATE"], "/v1/configmaps")]).await;
    let data = json!({"mutation-start": "yes"});
    let make = async |name: &str| world.make(CONFIG_MAPS, &config_map(name, data.clone())).await;
    assert_eq!(make("a").await["data"]["mutation-stage-1"], "yes");
    set_operations(&world, "mutating", &["UPDATE"]).await;
    assert_eq!(make("b").await["data"], data);
    set_operations(&world, "mutating", &["CREATE"]).await;
    assert_eq!(make("c").await["data"]["mutation-stage-1"], "yes");
}

#[tokio::test]
async fn configurations_are_listed_and_deleted_as_collections() {
    let (world, hook) = world().await;
    for kind in ["validating", "mutating"] {
        let collection = format!("{GROUP}/{kind}webhookconfigurations");
        for at in 0..3 {
            let resource = "/v1/configmaps";
            let hook = webhook(&hook, "/always-deny", &["CREATE"], resource);
            let object = json!({"metadata": {"name": format!("c{at}"), "labels": {"run": kind}},
                "webhooks": [hook]});
            world.make(&collection, &object).await;
        }
        let selected = format!("{collection}?labelSelector=run={kind}");
        let list = world.ask("GET", &selected, &Value::Null).await.json();
        assert_eq!(list["items"].as_array().map(Vec::len), Some(3));
        refused(
            &create(&world, CONFIG_MAPS, &config_map(kind, json!({}))).await,
            "denies all requests",
        );
        assert_eq!(world.ask("DELETE", &selected, &Value::Null).await.code, 200);
        world.make(CONFIG_MAPS, &config_map(kind, json!({}))).await;
    }
}

#[tokio::test]
async fn match_conditions_decide_whether_a_webhook_is_asked() {
    let (world, hook) = world().await;
    let conditions = |list: Value| {
        let stage = webhook(&hook, "/stage-1", &["CREATE"], "/v1/configmaps");
        with(stage, &json!({"matchConditions": list}))
    };
    let skip = json!([{"name": "skip-me", "expression": "object.metadata.name != 'skip-me'"}]);
    mutate(&world, &[conditions(skip.clone())]).await;
    let data = json!({"mutation-start": "yes"});
    let make = async |name: &str| world.make(CONFIG_MAPS, &config_map(name, data.clone())).await;
    assert_eq!(make("other").await["data"]["mutation-stage-1"], "yes");
    assert_eq!(make("skip-me").await["data"], data);
    let stored = world.ask("GET", &path("mutating"), &Value::Null).await.json();
    assert_eq!(stored["webhooks"][0]["matchConditions"], skip);
    // A condition that fails refuses the request where the webhook fails closed, and skips it otherwise.
    let failing = json!([{"name": "fails", "expression": "object.spec.absent == 1"}]);
    world.set(&path("mutating"), &json!({"webhooks": [conditions(failing.clone())]})).await;
    let denied = create(&world, CONFIG_MAPS, &config_map("c", data.clone())).await;
    assert_eq!(denied.code, 403, "{}", denied.json());
    let open = with(conditions(failing), &json!({"failurePolicy": "Ignore"}));
    world.set(&path("mutating"), &json!({"webhooks": [open]})).await;
    assert_eq!(make("c").await["data"], data);
    // The user's rights.
    let rights = json!([{"name": "rights",
        "expression": "!authorizer.group('').resource('secrets').check('get').allowed()"}]);
    world.set(&path("mutating"), &json!({"webhooks": [conditions(rights)]})).await;
    assert_eq!(make("d").await["data"], data, "the administrator may");
}

#[tokio::test]
async fn invalid_match_conditions_are_refused() {
    let (world, hook) = world().await;
    for kind in ["validating", "mutating"] {
        let bad = json!({"matchConditions": [{"name": "bad", "expression": "..."}]});
        let hook = with(webhook(&hook, "/allow", &["CREATE"], "/v1/configmaps"), &bad);
        let object = json!({"metadata": {"name": "test"}, "webhooks": [hook]});
        let denied = create(&world, &format!("{GROUP}/{kind}webhookconfigurations"), &object).await;
        assert_eq!(denied.code, 422, "{}", denied.json());
        refused(&denied, "webhooks[0].matchConditions[0].expression");
    }
}

#[tokio::test]
async fn faulty_configurations_are_refused() {
    let (world, hook) = world().await;
    let good = || webhook(&hook, "/allow", &["CREATE"], "/v1/configmaps");
    for (fields, field) in [
        (json!({"name": "short"}), "webhooks[0].name"),
        (json!({"sideEffects": "Some"}), "webhooks[0].sideEffects"),
        (json!({"sideEffects": null}), "webhooks[0].sideEffects"),
        (json!({"admissionReviewVersions": []}), "webhooks[0].admissionReviewVersions"),
        (json!({"admissionReviewVersions": ["v3"]}), "webhooks[0].admissionReviewVersions"),
        (json!({"timeoutSeconds": 31}), "webhooks[0].timeoutSeconds"),
        (json!({"timeoutSeconds": 0}), "webhooks[0].timeoutSeconds"),
        (json!({"failurePolicy": "Maybe"}), "webhooks[0].failurePolicy"),
        (json!({"matchPolicy": "Maybe"}), "webhooks[0].matchPolicy"),
        (json!({"clientConfig": {}}), "webhooks[0].clientConfig"),
        (json!({"clientConfig": {"url": "http://a"}}), "webhooks[0].clientConfig.url"),
        (
            json!({"rules": [{"operations": ["WATCH"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]}),
            "webhooks[0].rules[0].operations[0]",
        ),
        (
            json!({"rules": [{"operations": ["*"], "apiGroups": ["*", "a"], "apiVersions": ["*"], "resources": ["*"]}]}),
            "webhooks[0].rules[0].apiGroups",
        ),
        (
            json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*", "a"]}]}),
            "webhooks[0].rules[0].resources",
        ),
        (
            json!({"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}),
            "webhooks[0].namespaceSelector",
        ),
    ] {
        let object = json!({"metadata": {"name": "test"}, "webhooks": [with(good(), &fields)]});
        let denied =
            create(&world, &format!("{GROUP}/validatingwebhookconfigurations"), &object).await;
        assert_eq!(denied.code, 422, "{fields}: {}", denied.json());
        refused(&denied, field);
    }
    let reinvocation = with(good(), &json!({"reinvocationPolicy": "Always"}));
    let object = json!({"metadata": {"name": "test"}, "webhooks": [reinvocation]});
    let denied = create(&world, &format!("{GROUP}/mutatingwebhookconfigurations"), &object).await;
    refused(&denied, "webhooks[0].reinvocationPolicy");
    register(&world, "validating", "test", &[good()]).await;
}
