//! Upstream's cases on built-in resources.

use serde_json::{Value, json};

use super::{
    CONFIG_MAPS, GROUP, PODS, bad_data, config_map, create, mutate, pod, refused, register,
    validate, webhook, with, world,
};

#[tokio::test]
async fn discovery_has_the_configurations() {
    let (world, _) = world().await;
    let get = async |path: &str| world.ask("GET", path, &Value::Null).await.json();
    let groups = get("/apis").await;
    let groups = groups["groups"].as_array().cloned().unwrap_or_default();
    let group = groups.iter().find(|g| g["name"] == "admissionregistration.k8s.io");
    let versions = group.expect("the group")["versions"].as_array().cloned().unwrap_or_default();
    assert!(versions.iter().any(|v| v["version"] == "v1"));
    let group = get("/apis/admissionregistration.k8s.io").await;
    assert_eq!(group["name"], "admissionregistration.k8s.io");
    let resources = get(GROUP).await;
    let has = |name: &str| {
        resources["resources"].as_array().is_some_and(|all| all.iter().any(|r| r["name"] == name))
    };
    assert!(has("mutatingwebhookconfigurations") && has("validatingwebhookconfigurations"));
}

#[tokio::test]
async fn pods_and_config_maps_are_denied() {
    let (world, hook) = world().await;
    let skipping = json!({"namespaceSelector": {"matchExpressions": [
        {"key": "skip-webhook-admission", "operator": "NotIn", "values": ["yes"]}]}});
    let configmaps =
        webhook(&hook, "/configmaps", &["CREATE", "UPDATE", "DELETE"], "/v1/configmaps");
    let pods =
        with(webhook(&hook, "/pods", &["CREATE"], "/v1/pods"), &json!({"timeoutSeconds": 1}));
    register(&world, "validating", "test", &[pods, with(configmaps, &skipping)]).await;
    let denied = create(&world, PODS, &pod("a", "webhook-disallow")).await;
    refused(
        &denied,
        "admission webhook \"pods.example.com\" denied the request: the pod contains unwanted container name",
    );
    assert_eq!(denied.code, 400);
    let mut hanging = pod("b", "c");
    hanging["metadata"]["labels"] = json!({"webhook-e2e-test": "wait-forever"});
    refused(&create(&world, PODS, &hanging).await, "context deadline exceeded");
    assert_eq!(world.ask("GET", &format!("{PODS}/b"), &Value::Null).await.code, 404);
    let text = "the configmap contains unwanted key and value";
    refused(&create(&world, CONFIG_MAPS, &config_map("a", bad_data())).await, text);
    world.make(CONFIG_MAPS, &config_map("b", json!({"ok": "yes"}))).await;
    let path = format!("{CONFIG_MAPS}/b");
    refused(&world.ask("PUT", &path, &config_map("b", bad_data())).await, text);
    let patch = json!({"data": bad_data()});
    refused(&world.ask_by(&world.admin, ("PATCH", &path), &patch).await, text);
    let exempt =
        json!({"metadata": {"name": "exempted", "labels": {"skip-webhook-admission": "yes"}}});
    world.make("/api/v1/namespaces", &exempt).await;
    world.make("/api/v1/namespaces/exempted/configmaps", &config_map("a", bad_data())).await;
}

#[tokio::test]
async fn attaching_to_a_pod_is_denied() {
    let (world, hook) = world().await;
    validate(&world, webhook(&hook, "/attach", &["CONNECT"], "/v1/pods/attach")).await;
    world.make(PODS, &pod("to-be-attached-pod", "c")).await;
    let attach = format!("{PODS}/to-be-attached-pod/attach?stdin=true&container=c");
    let denied = world.ask("POST", &attach, &Value::Null).await;
    refused(&denied, "attaching to pod 'to-be-attached-pod' is not allowed");
    let asked = hook.take_seen();
    let request = &asked.last().expect("asked").review["request"];
    assert_eq!(
        (&request["operation"], &request["subResource"]),
        (&json!("CONNECT"), &json!("attach"))
    );
    assert_eq!(request["kind"], json!({"group": "", "version": "v1", "kind": "PodAttachOptions"}));
    assert_eq!(
        (&request["object"]["stdin"], &request["object"]["container"]),
        (&json!(true), &json!("c"))
    );
    assert_eq!((&request["oldObject"], &request["options"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn a_webhook_that_cannot_be_called_refuses_everything() {
    let (world, hook) = world().await;
    let mut unverified = webhook(&hook, "/configmaps", &["CREATE"], "/v1/configmaps");
    let selector = json!({"matchLabels": {"fail-closed": "yes"}});
    unverified["clientConfig"].as_object_mut().expect("a map").remove("caBundle");
    unverified["namespaceSelector"] = selector;
    validate(&world, unverified).await;
    let closed = json!({"metadata": {"name": "closed", "labels": {"fail-closed": "yes"}}});
    world.make("/api/v1/namespaces", &closed).await;
    let denied =
        create(&world, "/api/v1/namespaces/closed/configmaps", &config_map("a", json!({}))).await;
    assert_eq!((denied.code, &denied.json()["reason"]), (500, &json!("InternalError")));
    refused(
        &denied,
        "Internal error occurred: failed calling webhook \"configmaps.example.com\": failed to call webhook: Post \"https://hook.default.svc:443/configmaps?timeout=10s\": tls: failed to verify certificate: x509: certificate signed by unknown authority",
    );
    world.make(CONFIG_MAPS, &config_map("a", json!({}))).await;
}

#[tokio::test]
async fn config_maps_are_mutated_in_order() {
    let (world, hook) = world().await;
    let stage = |path: &str| webhook(&hook, path, &["CREATE"], "/v1/configmaps");
    mutate(&world, &[stage("/stage-1"), stage("/stage-2")]).await;
    let made = world.make(CONFIG_MAPS, &config_map("a", json!({"mutation-start": "yes"}))).await;
    let all =
        json!({"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"});
    assert_eq!(made["data"], all);
    // Configurations are asked in the order of their names, whenever they came.
    let (world, hook) = super::world().await;
    let stage = |path: &str| webhook(&hook, path, &["CREATE"], "/v1/configmaps");
    register(&world, "mutating", "b", &[stage("/stage-2")]).await;
    register(&world, "mutating", "a", &[stage("/stage-1")]).await;
    let made = world.make(CONFIG_MAPS, &config_map("a", json!({"mutation-start": "yes"}))).await;
    assert_eq!(made["data"], all);
}

#[tokio::test]
async fn defaults_are_filled_in_after_a_mutation() {
    let (world, hook) = world().await;
    mutate(&world, &[webhook(&hook, "/init-container", &["CREATE"], "/v1/pods")]).await;
    let made = world.make(PODS, &pod("a", "c")).await;
    let added = &made["spec"]["initContainers"][0];
    assert_eq!(added["name"], "webhook-added-init-container");
    assert_eq!(added["terminationMessagePolicy"], "File");
    assert_eq!(added["imagePullPolicy"], "Always", "{added}");
}

#[tokio::test]
async fn configurations_are_out_of_reach_of_webhooks() {
    let (world, hook) = world().await;
    let all = |path: &str, operations: &[&str]| {
        webhook(&hook, path, operations, "admissionregistration.k8s.io/*/*")
    };
    register(&world, "validating", "block", &[all("/always-deny", &["DELETE"])]).await;
    register(&world, "mutating", "label", &[all("/add-label", &["CREATE"])]).await;
    for kind in ["validating", "mutating"] {
        let other = webhook(&hook, "/allow", &["CREATE"], "/v1/invalid");
        let made = register(&world, kind, "other", &[other]).await;
        assert_eq!(made["metadata"]["labels"], Value::Null, "{kind}");
        let path = format!("{GROUP}/{kind}webhookconfigurations/other");
        assert_eq!(world.ask("DELETE", &path, &Value::Null).await.code, 200, "{kind}");
    }
    assert!(hook.take_seen().is_empty());
}

#[tokio::test]
async fn time_limits_are_kept() {
    let (world, hook) = world().await;
    let hanging =
        |fields: Value| with(webhook(&hook, "/hang", &["CREATE"], "/v1/configmaps"), &fields);
    let made =
        register(&world, "validating", "test", &[hanging(json!({"timeoutSeconds": 1}))]).await;
    let path = format!("{GROUP}/validatingwebhookconfigurations/test");
    let denied = create(&world, CONFIG_MAPS, &config_map("a", json!({}))).await;
    refused(
        &denied,
        "Post \"https://hook.default.svc:443/hang?timeout=1s\": context deadline exceeded",
    );
    let mut open = made.clone();
    open["webhooks"][0]["failurePolicy"] = "Ignore".into();
    assert_eq!(world.ask("PUT", &path, &open).await.code, 200);
    world.make(CONFIG_MAPS, &config_map("a", json!({}))).await;
    let limit = hanging(json!({"timeoutSeconds": null}));
    world.set(&path, &json!({"webhooks": [limit]})).await;
    let stored = world.ask("GET", &path, &Value::Null).await.json();
    assert_eq!(stored["webhooks"][0]["timeoutSeconds"], 10, "the default");
    // A client that waits less long is the limit.
    hook.take_seen();
    let short =
        create(&world, &format!("{CONFIG_MAPS}?timeout=1500ms"), &config_map("b", json!({}))).await;
    assert!(short.code >= 500, "{}", short.json());
    assert_eq!(hook.take_seen()[0].uri, "/hang?timeout=2s");
}
