//! The versions of tutorials of the past.

use serde_json::{Value, json};

use crate::harness::{Setup, World};

async fn world() -> World {
    World::with(Setup { legacy: true, ..Setup::default() }).await
}

const DEPLOYMENTS: &str = "/apis/extensions/v1beta1/namespaces/default/deployments";

fn of_2016() -> Value {
    json!({"apiVersion": "extensions/v1beta1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 2, "template": {"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "nginx:1.7.9"}]}}}})
}

#[tokio::test]
async fn they_are_refused_where_nobody_asked_for_them() {
    let world = World::new().await;
    assert_eq!(world.ask("POST", DEPLOYMENTS, &of_2016()).await.code, 404);
    assert_eq!(world.ask("GET", "/apis/extensions", &Value::Null).await.code, 404);
    let groups = world.ask("GET", "/apis", &Value::Null).await.json().to_string();
    assert!(!groups.contains("extensions\"") && !groups.contains("v1beta2"), "{groups}");
}

/// kubectl warns of a short name that two groups have, and scripts that read its answers break.
#[tokio::test]
async fn they_have_no_short_names() {
    let world = world().await;
    let named = |path: &'static str| {
        let world = &world;
        async move {
            let list = world.ask("GET", path, &Value::Null).await.json();
            let all = list["resources"].as_array().cloned().unwrap_or_default();
            let row = all.into_iter().find(|row| row["name"] == "deployments").expect("served");
            (!row["shortNames"].is_null(), !row["categories"].is_null())
        }
    };
    assert_eq!(named("/apis/apps/v1").await, (true, true));
    assert_eq!(named("/apis/extensions/v1beta1").await, (false, false));
    assert_eq!(named("/apis/apps/v1beta1").await, (false, false));
}

#[tokio::test]
async fn a_deployment_of_2016_works() {
    let world = world().await;
    let headers = [("content-type", "application/json")];
    let sent = of_2016().to_string();
    let made = world.ask_as(&world.admin, ("POST", DEPLOYMENTS), &headers, sent).await;
    assert_eq!(made.code, 201, "{}", made.json());
    let warning = made.headers["warning"].to_str().expect("text");
    assert_eq!(
        warning,
        "299 - \"extensions/v1beta1 Deployment is deprecated in v1.9+, unavailable in v1.16+; use apps/v1 Deployment\""
    );
    let shown = made.json();
    assert_eq!(
        (shown["apiVersion"].as_str(), &shown["metadata"]["generation"]),
        (Some("extensions/v1beta1"), &json!(1))
    );
    assert_eq!(shown["spec"]["selector"], json!({"matchLabels": {"app": "web"}}));
    assert_eq!(shown["spec"]["strategy"]["rollingUpdate"]["maxSurge"], 1);
    let current = "/apis/apps/v1/namespaces/default/deployments/web";
    let now = world.ask("GET", current, &Value::Null).await;
    assert!(!now.headers.contains_key("warning"));
    let now = now.json();
    assert_eq!(now["apiVersion"], "apps/v1");
    assert_eq!(now["metadata"]["uid"], shown["metadata"]["uid"]);
    assert_eq!(now["spec"]["selector"], shown["spec"]["selector"]);
    // Patched, scaled and listed as then.
    let path = format!("{DEPLOYMENTS}/web");
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "nginx:1.9.1"}]}}}});
    let kind = [("content-type", "application/strategic-merge-patch+json")];
    let patched = world.ask_as(&world.admin, ("PATCH", &path), &kind, patch.to_string()).await;
    assert_eq!(patched.code, 200, "{}", patched.json());
    assert_eq!(patched.json()["metadata"]["generation"], 2);
    let scale = json!({"spec": {"replicas": 5}});
    let scaled = world.ask_by(&world.admin, ("PATCH", &format!("{path}/scale")), &scale).await;
    assert_eq!(scaled.code, 200, "{}", scaled.json());
    let list = world.ask("GET", DEPLOYMENTS, &Value::Null).await.json();
    assert_eq!(
        (list["kind"].as_str(), list["apiVersion"].as_str()),
        (Some("DeploymentList"), Some("extensions/v1beta1"))
    );
    assert_eq!(list["items"][0]["spec"]["replicas"], 5);
    let seen = world.until(&format!("{DEPLOYMENTS}?watch=true"), |_, _| true).await;
    assert_eq!(seen["apiVersion"], "extensions/v1beta1");
    let applied = json!({"apiVersion": "apps/v1beta2", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"minReadySeconds": 3}});
    let path = "/apis/apps/v1beta2/namespaces/default/deployments/web?fieldManager=me";
    let kind = [("content-type", "application/apply-patch+yaml")];
    let applied = world.ask_as(&world.admin, ("PATCH", path), &kind, applied.to_string()).await;
    assert_eq!(applied.code, 200, "{}", applied.json());
    assert_eq!(world.ask("GET", current, &Value::Null).await.json()["spec"]["minReadySeconds"], 3);
}

#[tokio::test]
async fn their_rules_are_those_of_today() {
    let world = world().await;
    let mut wrong = of_2016();
    wrong["spec"]["selector"] = json!({"matchLabels": {"app": "other"}});
    let (code, told) = world.ask("POST", DEPLOYMENTS, &wrong).await.told();
    assert_eq!(code, 422);
    assert!(told.contains("`selector` does not match template `labels`"), "{told}");
    let path = "/apis/networking.k8s.io/v1beta1/namespaces/default/ingresses";
    let ingress = |port: Value| {
        json!({"metadata": {"name": "i"}, "spec": {"rules": [{"host": "h.example", "http": {"paths":
            [{"path": "/", "backend": {"serviceName": "web", "servicePort": port}}]}}]}})
    };
    let (code, told) = world.ask("POST", path, &ingress(json!(70_000))).await.told();
    assert_eq!(code, 422, "{told}");
    let made = world.make(path, &ingress(json!("http"))).await;
    assert_eq!(made["spec"]["rules"][0]["http"]["paths"][0]["pathType"], "ImplementationSpecific");
    let now = world
        .ask("GET", "/apis/networking.k8s.io/v1/namespaces/default/ingresses/i", &Value::Null)
        .await;
    assert_eq!(
        now.json()["spec"]["rules"][0]["http"]["paths"][0]["backend"],
        json!({"service": {"name": "web", "port": {"name": "http"}}})
    );
    let headers = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = world.ask_as(&world.admin, ("GET", path), &headers, "").await.json();
    assert_eq!(table["rows"][0]["cells"][2], "h.example");
    let budgets = "/apis/policy/v1beta1/namespaces/default/poddisruptionbudgets";
    world.make(budgets, &json!({"metadata": {"name": "b"}, "spec": {"selector": {}}})).await;
    let now = world
        .ask("GET", "/apis/policy/v1/namespaces/default/poddisruptionbudgets/b", &Value::Null)
        .await;
    assert!(
        now.json()["spec"]["selector"]["matchExpressions"][0]["key"]
            .as_str()
            .is_some_and(|key| key.contains("empty-selector"))
    );
    let scalers = "/apis/autoscaling/v2beta1/namespaces/default/horizontalpodautoscalers";
    let scaler = json!({"metadata": {"name": "s"}, "spec": {"maxReplicas": 3,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "targetAverageUtilization": 60}}]}});
    let made = world.make(scalers, &scaler).await;
    assert_eq!(
        made["spec"]["metrics"][0]["resource"],
        json!({"name": "cpu", "targetAverageUtilization": 60})
    );
}

/// Clients that do not ask for a version get that of today.
#[tokio::test]
async fn they_are_hidden_behind_those_of_today() {
    let world = world().await;
    let groups = world.ask("GET", "/apis", &Value::Null).await.json();
    let groups = groups["groups"].as_array().expect("groups").clone();
    let preferred = |name: &str| {
        let group = groups.iter().find(|group| group["name"] == name).expect("the group");
        group["preferredVersion"]["version"].as_str().expect("text").to_owned()
    };
    assert_eq!((preferred("apps").as_str(), preferred("batch").as_str()), ("v1", "v1"));
    assert_eq!(groups.last().expect("some")["name"], "extensions");
    let served =
        world.ask("GET", "/apis/extensions/v1beta1", &Value::Null).await.json().to_string();
    for name in ["deployments/scale", "ingresses/status", "networkpolicies"] {
        assert!(served.contains(name), "{name}: {served}");
    }
}

#[tokio::test]
async fn documents_describe_them_where_they_are_served() {
    let world = world().await;
    let index = world.ask("GET", "/openapi/v3", &Value::Null).await.json();
    assert!(index["paths"]["apis/extensions/v1beta1"].is_object());
    let document = world.ask("GET", "/openapi/v3/apis/extensions/v1beta1", &Value::Null).await;
    let document = document.json();
    let path = "/apis/extensions/v1beta1/namespaces/{namespace}/ingresses";
    assert!(document["paths"][path]["post"].is_object());
    let backend =
        &document["components"]["schemas"]["io.k8s.api.extensions.v1beta1.IngressBackend"];
    assert!(backend["properties"]["servicePort"].is_object(), "{backend}");
    assert_eq!(world.ask("GET", "/openapi/v2", &Value::Null).await.code, 200);
}
