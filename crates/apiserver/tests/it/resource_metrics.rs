//! `metrics.k8s.io`, as far as it can be asked without kubelets.

use apiserver::User;
use serde_json::{Value, json};

use crate::harness::{Setup, World};

const BASE: &str = "/apis/metrics.k8s.io/v1beta1";

async fn world() -> World {
    World::with(Setup { resource_metrics: true, ..Setup::default() }).await
}

#[tokio::test]
async fn it_is_served_and_told_where_it_was_asked_for() {
    let (with, without) = (world().await, World::new().await);
    let group = |answer: Value| {
        let groups = answer["groups"].as_array().expect("groups").clone();
        groups.into_iter().find(|group| group["name"] == "metrics.k8s.io")
    };
    let shown = group(with.ask("GET", "/apis", &Value::Null).await.json()).expect("the group");
    assert_eq!(shown["preferredVersion"]["groupVersion"], "metrics.k8s.io/v1beta1");
    assert_eq!(group(without.ask("GET", "/apis", &Value::Null).await.json()), None);
    let resources = with.ask("GET", BASE, &Value::Null).await.json();
    let names: Vec<&Value> =
        resources["resources"].as_array().expect("a list").iter().map(|r| &r["name"]).collect();
    assert_eq!(names, ["nodes", "pods"]);
    assert_eq!(without.ask("GET", BASE, &Value::Null).await.code, 404);
    let service = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io";
    let spec = with.ask("GET", service, &Value::Null).await.json()["spec"].clone();
    assert_eq!(spec["groupPriorityMinimum"], 100);
    assert_eq!(without.ask("GET", service, &Value::Null).await.code, 404);
    let headers =
        [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    let all = with.ask_as(&with.admin, ("GET", "/apis"), &headers, "").await.json();
    let all = all["items"].as_array().expect("items");
    let own = all.iter().find(|item| item["metadata"]["name"] == "metrics.k8s.io");
    let own = &own.expect("the group")["versions"][0];
    assert_eq!(own["freshness"], "Current");
    assert_eq!(own["resources"][1]["responseKind"]["kind"], "PodMetrics");
}

#[tokio::test]
async fn what_is_not_there_is_refused_by_name() {
    let world = world().await;
    let told = async |method: &str, path: &str| {
        world.ask(method, &format!("{BASE}{path}"), &Value::Null).await.told()
    };
    assert_eq!(told("GET", "/nodes/n").await, (404, "nodes \"n\" not found".into()));
    let pod = "/namespaces/default/pods/p";
    assert_eq!(told("GET", pod).await, (404, "pods \"p\" not found".into()));
    assert_eq!(told("DELETE", pod).await.0, 405);
    assert_eq!(told("GET", "/pods?watch=true").await.0, 405);
    assert_eq!(told("GET", "/things").await.0, 404);
    assert_eq!(told("GET", "/pods?labelSelector=a%20b").await.0, 400);
    // A node that is there and tells nothing has no figures.
    world.make("/api/v1/nodes", &json!({"metadata": {"name": "n"}})).await;
    let none = (404, "nodes.metrics.k8s.io \"n\" not found".into());
    assert_eq!(told("GET", "/nodes/n").await, none);
    let list = world.ask("GET", &format!("{BASE}/nodes"), &Value::Null).await.json();
    assert_eq!((list["kind"].as_str(), &list["items"]), (Some("NodeMetricsList"), &json!([])));
    let eve = User::new("eve", &["system:authenticated"]);
    let (code, why) =
        world.ask_by(&eve, ("GET", &format!("{BASE}/pods")), &Value::Null).await.told();
    assert_eq!(code, 403);
    assert!(why.contains("cannot list resource \"pods\" in API group \"metrics.k8s.io\""), "{why}");
}

/// A server of its own takes the group over, and gives it back.
#[tokio::test]
async fn an_api_service_takes_it_over() {
    let world = world().await;
    let service = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io";
    let spec = json!({"spec": {"insecureSkipTLSVerify": true,
        "service": {"namespace": "kube-system", "name": "metrics-server"}}});
    world.set(service, &spec).await;
    assert_eq!(world.ask("GET", &format!("{BASE}/nodes"), &Value::Null).await.code, 503);
    world.ask("DELETE", service, &Value::Null).await;
    assert_eq!(world.ask("GET", &format!("{BASE}/nodes"), &Value::Null).await.code, 200);
}
