//! The fields of AdmissionReview.

use std::collections::BTreeMap;

use apiserver::User;
use serde_json::{Value, json};

use super::{CONFIG_MAPS, PODS, config_map, mutate, pod, register, validate, webhook, with, world};

#[tokio::test]
async fn a_review_says_who_asks_for_what() {
    let (world, hook) = world().await;
    validate(&world, webhook(&hook, "/allow", &["*"], "/v1/configmaps")).await;
    let mut user = User::new("jane", &["system:masters"]);
    user.uid = "7".into();
    user.extra = BTreeMap::from([("scopes".to_owned(), vec!["a".to_owned(), "b".to_owned()])]);
    let path = format!("{CONFIG_MAPS}?fieldManager=m");
    let made = world.ask_by(&user, ("POST", &path), &config_map("a", json!({"k": "v"}))).await;
    assert_eq!(made.code, 201);
    let asked = hook.take_seen();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].uri, "/allow?timeout=10s");
    let review = &asked[0].review;
    assert_eq!(
        (&review["apiVersion"], &review["kind"]),
        (&json!("admission.k8s.io/v1"), &json!("AdmissionReview"))
    );
    let request = &review["request"];
    let kind = json!({"group": "", "version": "v1", "kind": "ConfigMap"});
    let resource = json!({"group": "", "version": "v1", "resource": "configmaps"});
    assert_eq!((&request["kind"], &request["requestKind"]), (&kind, &kind));
    assert_eq!((&request["resource"], &request["requestResource"]), (&resource, &resource));
    assert_eq!((&request["name"], &request["namespace"]), (&json!("a"), &json!("default")));
    assert_eq!((&request["operation"], &request["dryRun"]), (&json!("CREATE"), &json!(false)));
    assert_eq!(
        request["userInfo"],
        json!({"username": "jane", "uid": "7", "groups": ["system:masters"], "extra": {"scopes": ["a", "b"]}})
    );
    assert_eq!(
        request["options"],
        json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "m"})
    );
    assert_eq!(request["oldObject"], Value::Null);
    assert_eq!(
        (&request["object"]["kind"], &request["object"]["data"]),
        (&json!("ConfigMap"), &json!({"k": "v"}))
    );
    assert!(
        request.get("subResource").is_none()
            && request["uid"].as_str().is_some_and(|uid| uid.len() == 36)
    );
    world.set(&format!("{CONFIG_MAPS}/a"), &json!({"data": {"k": "w"}})).await;
    let update = &hook.take_seen()[0].review["request"];
    assert_eq!(
        (&update["operation"], &update["options"]["kind"]),
        (&json!("UPDATE"), &json!("UpdateOptions"))
    );
    assert_eq!(
        (&update["oldObject"]["data"]["k"], &update["object"]["data"]["k"]),
        (&json!("v"), &json!("w"))
    );
    world.ask("DELETE", &format!("{CONFIG_MAPS}/a?gracePeriodSeconds=0"), &Value::Null).await;
    let delete = &hook.take_seen()[0].review["request"];
    assert_eq!((&delete["operation"], &delete["object"]), (&json!("DELETE"), &Value::Null));
    assert_eq!(delete["oldObject"]["data"]["k"], "w");
}

#[tokio::test]
async fn what_the_server_sets_is_seen_only_by_validating_webhooks() {
    let (world, hook) = world().await;
    mutate(&world, &[webhook(&hook, "/add-label", &["CREATE"], "/v1/configmaps")]).await;
    validate(&world, webhook(&hook, "/allow", &["CREATE"], "/v1/configmaps")).await;
    let object = json!({"metadata": {"generateName": "g-"}, "data": {}});
    let made = world.make(CONFIG_MAPS, &object).await;
    let name = made["metadata"]["name"].as_str().expect("a name");
    let asked = hook.take_seen();
    let [mutating, validating] = [0, 1].map(|at: usize| &asked[at].review["request"]);
    assert_eq!(mutating.get("name"), None);
    assert_eq!(
        (&mutating["object"]["metadata"]["name"], &mutating["object"]["metadata"]["uid"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(mutating["namespace"], "default");
    assert_eq!(validating["object"]["metadata"]["name"], name);
    assert_eq!(validating["object"]["metadata"]["uid"], made["metadata"]["uid"]);
    assert_eq!(validating["object"]["metadata"]["labels"], json!({"webhook-added": "yes"}));
}

#[tokio::test]
async fn the_old_version_is_spoken_where_it_comes_first() {
    let (world, hook) = world().await;
    let versions = json!({"admissionReviewVersions": ["v1beta1", "v1"]});
    mutate(&world, &[with(webhook(&hook, "/stage-1", &["CREATE"], "/v1/configmaps"), &versions)])
        .await;
    let made = world.make(CONFIG_MAPS, &config_map("a", json!({"mutation-start": "yes"}))).await;
    assert_eq!(made["data"]["mutation-stage-1"], "yes");
    assert_eq!(hook.take_seen()[0].review["apiVersion"], "admission.k8s.io/v1beta1");
}

#[tokio::test]
async fn namespaces_and_subresources_are_named() {
    let (world, hook) = world().await;
    let both = [
        webhook(&hook, "/allow", &["CREATE"], "/v1/namespaces"),
        with(
            webhook(&hook, "/allow", &["*"], "/v1/pods/binding"),
            &json!({"name": "binding.example.com"}),
        ),
        with(
            webhook(&hook, "/allow", &["*"], "/v1/pods/status"),
            &json!({"name": "status.example.com"}),
        ),
    ];
    register(&world, "validating", "test", &both).await;
    world.make("/api/v1/namespaces", &json!({"metadata": {"name": "new"}})).await;
    let request = &hook.take_seen()[0].review["request"];
    assert_eq!((&request["name"], &request["namespace"]), (&json!("new"), &json!("new")));
    world.make(PODS, &pod("a", "c")).await;
    assert!(hook.take_seen().is_empty(), "subresources only");
    let binding = json!({"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n"}});
    world.make(&format!("{PODS}/a/binding"), &binding).await;
    let request = &hook.take_seen()[0].review["request"];
    assert_eq!(
        (&request["subResource"], &request["kind"]["kind"]),
        (&json!("binding"), &json!("Binding"))
    );
    world.set(&format!("{PODS}/a/status"), &json!({"status": {"message": "m"}})).await;
    assert_eq!(hook.take_seen()[0].review["request"]["subResource"], "status");
}
