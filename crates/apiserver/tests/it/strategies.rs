//! What strategies make of objects on their way in, and what they tell clients.

use serde_json::{Value, json};

use crate::harness::World;

const PODS: &str = "/api/v1/namespaces/default/pods";

async fn world() -> World {
    let world = World::new().await;
    let account = json!({"metadata": {"name": "default"}});
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    assert_eq!(world.ask("POST", accounts, &account).await.code, 201);
    world
}

#[tokio::test]
async fn a_gated_pod_says_so_and_merges_its_label_keys() {
    let world = world().await;
    let pod = json!({"metadata": {"name": "a", "labels": {"k": "v"}}, "spec": {
        "schedulingGates": [{"name": "x.y/z"}], "containers": [{"name": "c", "image": "i"}],
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "t", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {}, "matchLabelKeys": ["k"]}]}});
    let made = world.ask("POST", PODS, &pod).await.json();
    assert_eq!(made["status"]["conditions"][0]["reason"], "SchedulingGated", "{made}");
    let selector = &made["spec"]["topologySpreadConstraints"][0]["labelSelector"];
    assert_eq!(
        selector["matchExpressions"],
        json!([{"key": "k", "operator": "In", "values": ["v"]}])
    );
}

#[tokio::test]
async fn a_resize_may_add_limits_and_changes_nothing_else() {
    let world = world().await;
    let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [
        {"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}}]}});
    let mut sent = world.ask("POST", PODS, &pod).await.json();
    sent["spec"]["containers"][0]["resources"]["limits"] = json!({"cpu": "2"});
    sent["spec"]["containers"][0]["image"] = "j".into();
    sent["metadata"]["labels"] = json!({"a": "b"});
    let resized = world.ask("PUT", &format!("{PODS}/a/resize"), &sent).await;
    let pod = resized.json();
    assert_eq!(resized.code, 200, "{pod}");
    let container = &pod["spec"]["containers"][0];
    assert_eq!(
        (&container["resources"]["limits"]["cpu"], &container["image"]),
        (&json!("2"), &json!("i"))
    );
    assert_eq!(pod["metadata"]["labels"], Value::Null);
    sent["metadata"]["resourceVersion"] = Value::Null;
    sent["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1"}});
    let removed = world.ask("PUT", &format!("{PODS}/a/resize"), &sent).await;
    assert_eq!(removed.code, 422, "{}", removed.json());
}

#[tokio::test]
async fn accounts_secrets_and_deployments_keep_what_is_not_the_clients() {
    let world = world().await;
    let account = json!({"metadata": {"name": "b"}, "secrets": [{"name": "s", "kind": "Secret", "uid": "u"}]});
    let made = world.ask("POST", "/api/v1/namespaces/default/serviceaccounts", &account).await;
    assert_eq!(made.json()["secrets"], json!([{"name": "s"}]));
    let set = json!({"metadata": {"name": "d", "labels": {"a": "b"}}, "spec": {
        "selector": {"matchLabels": {"x": "y"}},
        "template": {"metadata": {"labels": {"x": "y"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let sets = "/apis/apps/v1/namespaces/default/deployments";
    let mut made = world.ask("POST", sets, &set).await.json();
    made["metadata"]["labels"] = json!({"other": "x"});
    let written = world.ask("PUT", &format!("{sets}/d/status"), &made).await.json();
    assert_eq!(written["metadata"]["labels"], json!({"a": "b"}));
    made["metadata"]["resourceVersion"] = Value::Null;
    made["metadata"]["annotations"] = json!({"new": "one"});
    let annotated = world.ask("PUT", &format!("{sets}/d"), &made).await.json();
    assert_eq!(annotated["metadata"]["generation"], 2);
}

#[tokio::test]
async fn built_in_groups_have_their_api_services() {
    let world = World::new().await;
    let path = "/apis/apiregistration.k8s.io/v1/apiservices/v1.apps";
    let service = world.ask("GET", path, &Value::Null).await.json();
    assert_eq!(service["spec"]["groupPriorityMinimum"], 17_800);
    assert_eq!(service["status"]["conditions"][0]["reason"], "Local");
    let root = world.ask("GET", "/", &Value::Null).await.json();
    let paths = root["paths"].as_array().cloned().unwrap_or_default();
    assert!(paths.contains(&json!("/apis/apps/v1")) && paths.contains(&json!("/readyz/shutdown")));
}

#[tokio::test]
async fn jobs_leave_their_pods_unless_told() {
    let world = world().await;
    let jobs = "/apis/batch/v1/namespaces/default/jobs";
    let job = |name: &str| {
        json!({"metadata": {"name": name}, "spec": {"template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}})
    };
    for (name, query, held) in [("a", "", true), ("b", "?propagationPolicy=Background", false)] {
        assert_eq!(world.ask("POST", jobs, &job(name)).await.code, 201);
        let deleted = world.ask("DELETE", &format!("{jobs}/{name}{query}"), &Value::Null).await;
        assert_eq!(deleted.code, 200, "{}", deleted.json());
        let left = world.ask("GET", &format!("{jobs}/{name}"), &Value::Null).await;
        assert_eq!(left.code == 200, held);
        if held {
            assert_eq!(left.json()["metadata"]["finalizers"], json!(["orphan"]));
        }
    }
}
