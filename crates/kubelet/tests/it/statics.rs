//! Static pods: of a folder and of a URL, with their mirrors in the API.

use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::api::FakeApi;
use crate::lifecycle::Node;

const MIRROR: &str = "/api/v1/namespaces/default/pods/web-n1";
const HASH: &str = "kubernetes.io/config.hash";

fn manifest(image: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:\n  containers: [{{name: c, image: \"{image}\", imagePullPolicy: IfNotPresent}}]\n"
    )
}

/// Written whole: the node never reads half of it.
fn put(folder: &Path, name: &str, text: &str) {
    let part = folder.join(format!(".{name}"));
    std::fs::write(&part, text).unwrap();
    std::fs::rename(part, folder.join(name)).unwrap();
}

fn node(folder: &Path) -> Node {
    Node::with(|config| config.static_pods.path = Some(folder.to_owned()))
}

async fn mirror(node: &Node, is: impl Fn(&Value) -> bool) -> Value {
    node.api.until(|api| api.get(MIRROR).filter(|m| is(m))).await
}

fn runs(mirror: &Value) -> bool {
    mirror["status"]["phase"] == "Running"
}

fn sandboxes(node: &Node) -> usize {
    node.runtime.table.lock().unwrap().sandboxes.len()
}

#[tokio::test]
async fn a_manifest_in_the_folder_runs_and_the_api_mirrors_it() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "web.yaml", &manifest("demo:v1"));
    let node = node(folder.path());
    let first = mirror(&node, runs).await;
    let annotations = &first["metadata"]["annotations"];
    assert_eq!(annotations["kubernetes.io/config.mirror"], annotations[HASH]);
    assert_eq!(annotations["kubernetes.io/config.source"], "file");
    let owner = &first["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["kind"], &owner["name"], &owner["controller"]),
        (&json!("Node"), &json!("n1"), &json!(true))
    );
    assert_eq!(owner["uid"], node.api.get("/api/v1/nodes/n1").unwrap()["metadata"]["uid"]);
    assert_ne!(first["metadata"]["uid"], annotations[HASH], "the mirror has a uid of its own");
    assert_eq!(sandboxes(&node), 1);

    // A mirror that is deleted comes back, with the pod's status; the pod does not notice.
    node.api.remove(MIRROR);
    let again = mirror(&node, runs).await;
    assert_ne!(again["metadata"]["uid"], first["metadata"]["uid"]);
    assert_eq!(again["status"]["startTime"], first["status"]["startTime"]);
    assert_eq!(again["status"]["containerStatuses"][0]["restartCount"], 0);
    assert_eq!(sandboxes(&node), 1);

    // Another manifest is another pod: the first one ends before.
    put(folder.path(), "web.yaml", &manifest("demo:v2"));
    let other =
        |m: &Value| m["metadata"]["annotations"][HASH] != first["metadata"]["annotations"][HASH];
    let new = mirror(&node, |m| other(m) && runs(m)).await;
    assert_eq!(new["spec"]["containers"][0]["image"], "demo:v2");
    assert_eq!(sandboxes(&node), 1);

    std::fs::remove_file(folder.path().join("web.yaml")).unwrap();
    node.api.until(|api| api.get(MIRROR).is_none().then_some(())).await;
    while sandboxes(&node) > 0 {
        tokio::task::yield_now().await;
    }
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn a_manifest_that_is_changed_while_the_pod_ends_waits_for_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let slow = manifest("demo:v1").replace("name: c,", "name: slow,");
    put(folder.path(), "web.yaml", &slow);
    let node = node(folder.path());
    mirror(&node, runs).await;
    put(folder.path(), "web.yaml", &manifest("demo:v2"));
    let stopped = || node.runtime.stops.lock().unwrap().iter().any(|(name, _)| name == "slow");
    while !stopped() {
        tokio::task::yield_now().await;
    }
    assert_eq!(sandboxes(&node), 1, "the new one has not begun");
    node.runtime.let_end.notify_one();
    let started = |m: &Value| m["status"]["containerStatuses"][0]["name"] == "c" && runs(m);
    mirror(&node, started).await;
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn what_a_static_pod_may_not_be_never_runs() {
    let folder = tempfile::tempdir().unwrap();
    let text = manifest("demo:v1");
    put(
        folder.path(),
        "account.yaml",
        &text.replace("spec:\n", "spec:\n  serviceAccountName: a\n"),
    );
    put(
        folder.path(),
        "secret.yaml",
        &text.replace("spec:\n", "spec:\n  volumes: [{name: v, secret: {secretName: s}}]\n"),
    );
    put(folder.path(), "broken.yaml", "kind: [");
    let node = node(folder.path());
    // One that may be comes after them by its name.
    put(folder.path(), "web.yaml", &text);
    mirror(&node, runs).await;
    assert_eq!(sandboxes(&node), 1);
    assert_eq!(node.api.list("/api/v1/namespaces/default/pods/").len(), 1);
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn no_taint_and_no_want_of_room_keeps_a_static_pod_away() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::with(|config| {
        config.static_pods.path = Some(folder.path().to_owned());
        config.max_pods = 1;
        config.taints =
            serde_json::from_value(json!([{"key": "a", "effect": "NoSchedule"}])).unwrap();
    });
    let held =
        |api: &FakeApi| Some(api.get("/api/v1/nodes/n1")?["status"]["allocatable"]["pods"].clone());
    assert_eq!(node.api.until(held).await, "1");
    let mut spec = crate::lifecycle::one(json!({}));
    spec["tolerations"] = json!([{"operator": "Exists"}]);
    node.create(spec);
    node.status(|s| s["phase"] == "Running").await;
    put(folder.path(), "web.yaml", &manifest("demo:v1"));
    mirror(&node, runs).await;
    assert_eq!(node.status(|s| s["phase"] == "Failed").await["reason"], "Preempting");
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn an_annotation_makes_no_pod_static() {
    let node = Node::with(|config| {
        config.taints =
            serde_json::from_value(json!([{"key": "a", "effect": "NoExecute"}])).unwrap();
    });
    node.api.until(|api| api.get("/api/v1/nodes/n1")).await;
    let mut spec = crate::lifecycle::one(json!({}));
    spec["nodeName"] = json!("n1");
    let meta = json!({"name": "web", "namespace": "default", "uid": "u1", "annotations": {"kubernetes.io/config.source": "file", HASH: "u1"}});
    node.api.put(
        crate::lifecycle::POD,
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}),
    );
    let status = node.status(|s| s["phase"] == "Failed").await;
    assert_eq!(status["reason"], "TaintToleration");
    node.tasks.shutdown().await;
}

/// Answers every request with what is in the slot, if the header is right.
async fn serve(listener: tokio::net::TcpListener, body: Arc<Mutex<String>>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let (status, body) = match head.contains("x-key: secret\r\n") {
            true => ("200 OK", body.lock().unwrap().clone()),
            false => ("403 Forbidden", manifest("demo:v9")),
        };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

async fn url_node(header: &str, body: Arc<Mutex<String>>) -> Node {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/pods", listener.local_addr().unwrap());
    tokio::spawn(serve(listener, body));
    Node::with(|config| {
        config.static_pods.url = Some(url);
        config.static_pods.url_headers = vec![("X-Key".to_owned(), header.to_owned())];
        config.static_pods.http_check = std::time::Duration::from_millis(20);
    })
}

#[tokio::test]
async fn a_url_gives_pods_too() {
    let body = Arc::new(Mutex::new(manifest("demo:v1")));
    let node = url_node("secret", body.clone()).await;
    let found = mirror(&node, runs).await;
    assert_eq!(found["metadata"]["annotations"]["kubernetes.io/config.source"], "http");
    assert!(found["spec"]["tolerations"].is_null(), "only files' pods tolerate every trouble");
    // An answer that is no pod changes nothing; an empty one ends them.
    *body.lock().unwrap() = "kind: Nothing".to_owned();
    let list = json!({"apiVersion": "v1", "kind": "PodList", "items": []});
    assert!(runs(&mirror(&node, |_| true).await));
    *body.lock().unwrap() = list.to_string();
    node.api.until(|api| api.get(MIRROR).is_none().then_some(())).await;
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn a_url_that_refuses_gives_none_and_nothing_is_an_orphan() {
    let node = url_node("wrong", Arc::default()).await;
    let path = "/api/v1/namespaces/default/pods/left-n1";
    let meta = json!({"name": "left-n1", "namespace": "default", "uid": "m", "annotations": {"kubernetes.io/config.mirror": "x"}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"nodeName": "n1", "containers": []}});
    node.api.put(path, pod);
    node.create(crate::lifecycle::one(json!({})));
    node.status(|s| s["phase"] == "Running").await;
    assert!(node.api.get(path).is_some(), "its pod may be the URL's");
    assert_eq!(sandboxes(&node), 1);
    node.tasks.shutdown().await;
}
