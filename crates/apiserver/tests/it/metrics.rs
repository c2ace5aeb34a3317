//! `GET /metrics`: what the server counts, and who may read it.

use apiserver::User;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use crate::harness::World;

async fn text(world: &World) -> String {
    let answer = world.ask("GET", "/metrics", &Value::Null).await;
    assert_eq!(answer.code, 200);
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    String::from_utf8(answer.bytes.to_vec()).expect("text")
}

/// The figure of a line that starts with the name and has all the labels.
fn figure(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let is = |line: &&str| line.starts_with(name) && labels.iter().all(|l| line.contains(l));
    let line = text.lines().find(is)?;
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test]
async fn requests_watches_and_objects_are_counted() {
    let world = World::new().await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = json!({"metadata": {"name": "a"}});
    assert_eq!(world.ask("POST", secrets, &secret).await.code, 201);
    assert_eq!(world.ask("POST", secrets, &secret).await.code, 409);
    assert_eq!(
        world.ask("GET", &format!("{secrets}?labelSelector=a%3Db"), &Value::Null).await.code,
        200
    );
    assert_eq!(
        world.ask("GET", "/api/v1/namespaces/default/nothings", &Value::Null).await.code,
        404
    );

    let watch = Request::get(format!("{secrets}?watch=1&timeoutSeconds=60"))
        .body(Full::<bytes::Bytes>::default());
    let response = world.server.serve_as(world.admin.clone(), watch.expect("a request")).await;
    let mut body = response.into_body();
    body.frame().await.expect("the state of a").expect("a body never fails");

    let told = text(&world).await;
    let count = "apiserver_request_total";
    let post =
        ["verb=\"POST\"", "resource=\"secrets\"", "scope=\"resource\"", "component=\"apiserver\""];
    assert_eq!(figure(&told, count, &[&post[..], &["code=\"201\""]].concat()), Some(1.0), "{told}");
    assert_eq!(figure(&told, count, &[&post[..], &["code=\"409\""]].concat()), Some(1.0));
    assert_eq!(figure(&told, "apiserver_request_duration_seconds_count", &post), Some(2.0));
    let list = ["verb=\"LIST\"", "resource=\"secrets\"", "scope=\"namespace\""];
    assert_eq!(figure(&told, "apiserver_response_sizes_count", &list), Some(1.0));
    assert!(!told.contains("nothings"), "a path that nobody serves makes no series");

    // Admission's are the process's: other tests count, too.
    let step = ["type=\"validate\"", "operation=\"CREATE\"", "rejected=\"false\""];
    let counted = |name: &str, labels: &[&str]| {
        let name = format!("apiserver_admission_{name}_admission_duration_seconds_count");
        figure(&told, &name, labels).is_some_and(|count| count >= 1.0)
    };
    assert!(counted("step", &step), "{told}");
    let controller = ["name=\"NamespaceLifecycle\"", "type=\"admit\"", "operation=\"CREATE\""];
    assert!(counted("controller", &controller), "{told}");
    let absent = ["name=\"NamespaceLifecycle\"", "type=\"validate\""];
    assert!(!counted("controller", &absent), "it has nothing to say in this phase");

    let watching = ["verb=\"WATCH\"", "resource=\"secrets\""];
    assert_eq!(figure(&told, "apiserver_longrunning_requests", &watching), Some(1.0));
    assert_eq!(figure(&told, count, &watching), Some(0.0), "a watch is counted when it ends");
    assert_eq!(figure(&told, "apiserver_watch_events_total", &["secrets"]), Some(1.0));
    assert_eq!(
        figure(&told, "apiserver_storage_objects", &["\"secrets\""]),
        figure(&told, "apiserver_resource_objects", &["\"secrets\""])
    );
    drop(body);
    let told = text(&world).await;
    assert_eq!(figure(&told, "apiserver_longrunning_requests", &watching), Some(0.0));
    assert_eq!(figure(&told, count, &watching), Some(1.0));
    for name in [
        "process_cpu_seconds_total",
        "kubernetes_build_info",
        "apiserver_current_inflight_requests",
        "apiserver_storage_size_bytes{storage_cluster_id=\"embedded\"} ",
    ] {
        assert!(figure(&told, name, &[]).is_some(), "{name}");
    }
}

#[tokio::test]
async fn figures_are_for_those_who_may_read_them() {
    let world = World::new().await;
    let user = User::new("u", &["system:authenticated"]);
    let answer = world.ask_by(&user, ("GET", "/metrics"), &Value::Null).await;
    assert_eq!(
        answer.told(),
        (403, r#"forbidden: User "u" cannot get path "/metrics""#.to_owned())
    );
    let monitor = User::new("m", &["system:monitoring"]);
    assert_eq!(world.ask_by(&monitor, ("GET", "/metrics"), &Value::Null).await.code, 200);
}
