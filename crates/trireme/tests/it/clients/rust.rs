//! kube-rs against a cluster.

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{
    Api, AttachParams, ListParams, LogParams, Patch, PatchParams, PostParams, WatchEvent,
    WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use super::{SELECTOR, SPACE, prepared, restart};
use crate::harness::Cluster;

async fn connect(cluster: &Cluster) -> Client {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    Client::try_from(config.expect("a configuration")).expect("a client")
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object of this type")
}

/// Reads events until there are so many, or the watch breaks.
async fn follow(
    maps: &Api<ConfigMap>,
    revision: &mut String,
    seen: &mut Vec<(&'static str, String)>,
    wanted: usize,
) {
    let parameters = WatchParams::default().labels(SELECTOR).disable_bookmarks();
    let Ok(events) = maps.watch(&parameters, revision).await else { return };
    let mut events = events.boxed();
    while seen.len() < wanted
        && let Ok(Some(event)) = events.try_next().await
    {
        let (kind, map) = match event {
            WatchEvent::Added(map) => ("ADDED", map),
            WatchEvent::Modified(map) => ("MODIFIED", map),
            WatchEvent::Deleted(map) => ("DELETED", map),
            other => panic!("{other:?}"),
        };
        *revision = map.metadata.resource_version.expect("a revision");
        seen.push((kind, map.metadata.name.expect("a name")));
    }
}

async fn patches(client: Client) {
    let apps: Api<Deployment> = Api::namespaced(client, SPACE);
    let web = json!({"metadata": {"name": "web"}, "spec": {
        "replicas": 0, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "one", "image": "none"}]}}}});
    apps.create(&PostParams::default(), &object(web)).await.expect("created");
    let names = |patched: Deployment| -> Vec<String> {
        let pod = patched.spec.and_then(|spec| spec.template.spec).expect("a pod's specification");
        pod.containers.into_iter().map(|c| c.name).collect()
    };
    let plain = PatchParams::default();
    let changed =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "two", "image": "none"}]}}}});
    let strategic = apps.patch("web", &plain, &Patch::Strategic(&changed)).await;
    assert_eq!(names(strategic.expect("patched")), ["two", "one"]);
    let merged = apps.patch("web", &plain, &Patch::Merge(&changed)).await;
    assert_eq!(names(merged.expect("patched")), ["two"]);
    let steps = json!([{"op": "add", "path": "/metadata/labels", "value": {"patched": "yes"}}]);
    let labelled = apps.patch("web", &plain, &Patch::<()>::Json(object(steps))).await;
    let labels = labelled.expect("patched").metadata.labels.expect("labels");
    assert_eq!(labels["patched"], "yes");
}

async fn apply(maps: &Api<ConfigMap>) {
    let send = async |manager: &str, value: &str, force: bool| {
        let mut parameters = PatchParams::apply(manager);
        parameters.force = force;
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "applied"}, "data": {"key": value}});
        maps.patch("applied", &parameters, &Patch::Apply(&map)).await
    };
    send("first", "1", false).await.expect("applied");
    match send("second", "2", false).await {
        Err(kube::Error::Api(refused)) => assert_eq!(refused.code, 409),
        other => panic!("a field of another manager was taken without force: {other:?}"),
    }
    let taken = send("second", "2", true).await.expect("applied");
    assert_eq!(taken.data.expect("data")["key"], "2");
    let fields = taken.metadata.managed_fields.expect("managed fields");
    assert!(fields.iter().any(|field| field.manager.as_deref() == Some("second")));
}

async fn logs_and_exec(client: Client) {
    let pods: Api<Pod> = Api::namespaced(client, "default");
    let logs = pods.logs("echo", &LogParams::default()).await.expect("logs");
    assert!(logs.contains("demo v1 on echo"), "{logs}");
    let parameters = AttachParams::default().stderr(false);
    let mut running =
        pods.exec("echo", ["/trireme", "--version"], &parameters).await.expect("runs");
    let mut said = String::new();
    let mut stdout = running.stdout().expect("asked for");
    stdout.read_to_string(&mut said).await.expect("text");
    assert!(said.contains("trireme"), "{said}");
    let status = running.take_status().expect("asked once").await;
    assert_eq!(status.and_then(|s| s.status).as_deref(), Some("Success"));
}

#[test]
fn kube_rs_is_served() {
    let cluster = prepared("krs");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut revision = String::new();
    let mut seen = Vec::new();
    runtime.block_on(async {
        let client = connect(&cluster).await;
        let maps: Api<ConfigMap> = Api::namespaced(client, SPACE);
        let listed = maps.list(&ListParams::default().labels(SELECTOR)).await.expect("a list");
        assert!(listed.items.is_empty());
        revision = listed.metadata.resource_version.expect("a revision");
        let a = json!({"metadata": {"name": "a", "labels": {"test": "clients"}}});
        maps.create(&PostParams::default(), &object(a)).await.expect("created");
        follow(&maps, &mut revision, &mut seen, 1).await;
    });
    restart(&cluster);
    runtime.block_on(async {
        let client = connect(&cluster).await;
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SPACE);
        while seen.len() < 4 {
            follow(&maps, &mut revision, &mut seen, 4).await;
        }
        let seen: Vec<(&str, &str)> = seen.iter().map(|(kind, name)| (*kind, &**name)).collect();
        assert_eq!(seen, [("ADDED", "a"), ("ADDED", "b"), ("ADDED", "c"), ("DELETED", "a")]);
        patches(client.clone()).await;
        apply(&maps).await;
        logs_and_exec(client).await;
    });
}
