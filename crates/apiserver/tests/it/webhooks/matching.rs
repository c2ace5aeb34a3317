//! Which requests a webhook is asked about: equivalent versions, labels, reinvocation.

use serde_json::{Value, json};

use super::{CONFIG_MAPS, config_map, mutate, register, webhook, with, world};

const SCALERS_V1: &str = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";

fn scaler() -> Value {
    json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
        "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 80,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}})
}

#[tokio::test]
async fn equivalent_versions_are_converted_there_and_back() {
    let (world, hook) = world().await;
    let rule = "autoscaling/v2/horizontalpodautoscalers";
    mutate(&world, &[webhook(&hook, "/autoscaler", &["CREATE"], rule)]).await;
    let made = world.make(SCALERS_V1, &scaler()).await;
    assert_eq!(made["apiVersion"], "autoscaling/v1");
    assert_eq!(made["spec"]["targetCPUUtilizationPercentage"], 33);
    let request = &hook.take_seen()[0].review["request"];
    assert_eq!(request["object"]["apiVersion"], "autoscaling/v2");
    assert_eq!(request["kind"]["version"], "v2");
    assert_eq!(request["requestKind"]["version"], "v1");
    let exact = webhook(&hook, "/always-deny", &["CREATE"], rule);
    register(&world, "validating", "test", &[with(exact, &json!({"matchPolicy": "Exact"}))]).await;
    let mut other = scaler();
    other["metadata"]["name"] = "b".into();
    world.make(SCALERS_V1, &other).await;
}

#[tokio::test]
async fn labels_select_objects() {
    let (world, hook) = world().await;
    let selector = json!({"objectSelector": {"matchLabels": {"mutate": "yes"}}});
    let webhook = webhook(&hook, "/stage-1", &["CREATE"], "/v1/configmaps");
    mutate(&world, &[with(webhook, &selector)]).await;
    let mut object = config_map("a", json!({"mutation-start": "yes"}));
    let made = world.make(CONFIG_MAPS, &object).await;
    assert_eq!(made["data"]["mutation-stage-1"], Value::Null);
    object["metadata"] = json!({"name": "b", "labels": {"mutate": "yes"}});
    let made = world.make(CONFIG_MAPS, &object).await;
    assert_eq!(made["data"]["mutation-stage-1"], "yes");
}

#[tokio::test]
async fn webhooks_are_asked_again_after_others_changed_the_object() {
    let (world, hook) = world().await;
    let on_create = |path: &str| webhook(&hook, path, &["CREATE"], "/v1/configmaps");
    let again = |path: &str| with(on_create(path), &json!({"reinvocationPolicy": "IfNeeded"}));
    register(&world, "mutating", "a", &[again("/count")]).await;
    let made = world.make(CONFIG_MAPS, &config_map("a", json!({"k": "v"}))).await;
    assert_eq!(made["data"]["count"], "1", "its own change is no reason");
    register(&world, "mutating", "b", &[on_create("/add-label")]).await;
    let made = world.make(CONFIG_MAPS, &config_map("b", json!({"k": "v"}))).await;
    assert_eq!(made["data"]["count"], "2", "the label is a change after it");
    hook.take_seen();
    world.make(CONFIG_MAPS, &config_map("c", json!({"k": "v"}))).await;
    let paths: Vec<String> = hook.take_seen().into_iter().map(|asked| asked.uri).collect();
    assert_eq!(paths, ["/count?timeout=10s", "/add-label?timeout=10s", "/count?timeout=10s"]);
}
