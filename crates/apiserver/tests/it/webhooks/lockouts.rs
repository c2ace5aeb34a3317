//! A webhook that refuses the pods that would serve it.

use serde_json::{Value, json};

use super::{GROUP, PODS, create, pod, refused, webhook, with, world};
use crate::harness::Answer;

fn warnings(answer: &Answer) -> Vec<String> {
    let values = answer.headers.get_all("warning").iter();
    values.filter_map(|value| value.to_str().ok().map(str::to_owned)).collect()
}

#[tokio::test]
async fn a_lockout_is_told_before_and_when_it_happens() {
    let (world, hook) = world().await;
    let selector = json!({"spec": {"selector": {"app": "hook"}}});
    world.set("/api/v1/namespaces/default/services/hook", &selector).await;
    let mut object = json!({"metadata": {"name": "lock"},
        "webhooks": [webhook(&hook, "/broken", &["CREATE"], "/v1/pods")]});
    let path = format!("{GROUP}/validatingwebhookconfigurations");
    let made = create(&world, &path, &object).await;
    assert_eq!(made.code, 201);
    let advice = "kubectl delete validatingwebhookconfiguration lock";
    assert!(warnings(&made).iter().any(|text| text.contains(advice)), "{:?}", warnings(&made));
    // The pods of the service are what matters.
    let other = create(&world, PODS, &pod("other", "c")).await;
    refused(&other, "failed calling webhook");
    assert!(warnings(&other).is_empty());
    let mut own = pod("own", "c");
    own["metadata"]["labels"] = json!({"app": "hook"});
    let denied = create(&world, PODS, &own).await;
    refused(&denied, "failed calling webhook");
    assert!(warnings(&denied).iter().any(|text| text.contains(advice)), "{:?}", warnings(&denied));
    let events = "/api/v1/namespaces/default/events?watch=true";
    let event = world.until(events, |_, event| event["reason"] == "WebhookLockout").await;
    assert_eq!(event["involvedObject"]["kind"], "ValidatingWebhookConfiguration");
    assert_eq!(event["involvedObject"]["name"], "lock");
    assert!(event["message"].as_str().is_some_and(|text| text.contains(advice)));
    // What frees the cluster is never refused.
    let gone = world.ask("DELETE", &format!("{path}/lock"), &Value::Null).await;
    assert_eq!(gone.code, 200);
    world.make(PODS, &own).await;
    // One that leaves its own namespace alone is no danger.
    let selector = json!({"matchExpressions": [
        {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["default"]}]});
    object["webhooks"][0] =
        with(object["webhooks"][0].take(), &json!({"namespaceSelector": selector}));
    assert!(warnings(&create(&world, &path, &object).await).is_empty());
}
