//! Containers that attack their node through what they share with it: volumes, sub paths, the file for
//! their last words. Real containers; needs root.

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::real::{Node, example};

/// A directory of the host's that no pod may see.
fn host(node: &Node) -> PathBuf {
    let host = node.dir.path().join("host");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("secret"), "of the host").unwrap();
    host
}

fn config_map(node: &Node, content: &str) {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm", "namespace": "default"}, "data": {"k": content}});
    node.api.put("/api/v1/namespaces/default/configmaps/cm", map);
}

/// Waits until the pod's volume `v` is there.
async fn volume(node: &Node) -> PathBuf {
    let volume = node.pod_dir("web").join("volumes/kubernetes.io~empty-dir/v");
    while !volume.exists() {
        tokio::task::yield_now().await;
    }
    volume
}

/// An init container that holds the pod up until the test has made `go` in the volume.
fn gate() -> Value {
    let wait = "while [ ! -e /v/go ]; do sleep 0.05; done";
    json!({"name": "gate", "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", wait], "volumeMounts": [{"name": "v", "mountPath": "/v"}]})
}

/// Waits until the pod has left nothing.
async fn cleaned_up(node: &Node) {
    while node.pod_dir("web").exists() {
        tokio::task::yield_now().await;
    }
}

fn running(status: &Value) -> bool {
    status["phase"] == "Running"
}

/// CVE-2017-1002102.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_cannot_write_to_what_the_kubelet_writes() {
    let node = Node::start().await;
    let host = host(&node);
    config_map(&node, "one");
    let attack = format!(
        "exec 2>&1; for d in /cm /all; do ln -sfn {} $d/..data; rm -rf $d/..data; echo x >$d/k; mkdir $d/new; done; \
         ls -a /cm /all; echo done; while true; do sleep 1; done",
        host.display()
    );
    let mounts = json!([{"name": "cm", "mountPath": "/cm"}, {"name": "all", "mountPath": "/all"}]);
    let projected = json!({"sources": [{"configMap": {"name": "cm"}}, {"serviceAccountToken": {"path": "token"}}]});
    let volumes = json!([{"name": "cm", "configMap": {"name": "cm"}}, {"name": "all", "projected": projected}]);
    let container = json!({"command": ["sh", "-c", attack], "volumeMounts": mounts, "securityContext": {"privileged": true}});
    node.pod_with("web", json!([container]), json!({"volumes": volumes}));
    node.status("web", running).await;
    let mut log = String::new();
    while !log.contains("done") {
        tokio::task::yield_now().await;
        log = node.log("web", "c");
    }
    assert_eq!(log.matches("Read-only file system").count(), 6, "{log}");
    config_map(&node, "two");
    let shown = node.pod_dir("web").join("volumes/kubernetes.io~configmap/cm/k");
    while std::fs::read_to_string(&shown).unwrap() != "two" {
        tokio::task::yield_now().await;
    }
    let token = node.pod_dir("web").join("volumes/kubernetes.io~projected/all/token");
    assert_eq!(std::fs::metadata(token).unwrap().mode() & 0o777, 0o644);
    node.delete("web").await;
    cleaned_up(&node).await;
    assert_eq!(std::fs::read_to_string(host.join("secret")).unwrap(), "of the host");
    node.tasks.shutdown().await;
}

/// What a container left in its volume is removed with it, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_pod_follows_none_of_its_links() {
    let node = Node::start().await;
    let host = host(&node);
    let script = format!(
        "ln -s {} /v/link; mkdir -p /v/a/b; ln -s / /v/a/b/root; echo done; while true; do sleep 1; done",
        host.display()
    );
    let container = json!({"command": ["sh", "-c", script], "volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    node.pod_with("web", json!([container]), json!({"volumes": [{"name": "v", "emptyDir": {}}]}));
    node.status("web", running).await;
    while !node.log("web", "c").contains("done") {
        tokio::task::yield_now().await;
    }
    node.delete("web").await;
    cleaned_up(&node).await;
    assert_eq!(std::fs::read_to_string(host.join("secret")).unwrap(), "of the host");
    node.tasks.shutdown().await;
}

/// CVE-2021-25741: containers start again and again while a neighbour swaps the sub path with a link.
#[tokio::test(flavor = "multi_thread")]
async fn a_raced_sub_path_never_shows_the_host() {
    const STARTS: usize = 24;
    let node = Node::start().await;
    let host = host(&node);
    let all = json!([{"name": "v", "mountPath": "/v"}]);
    let side = |name: &str, link: &str| json!({"name": name, "image": "busybox", "imagePullPolicy": "IfNotPresent", "restartPolicy": "Always", "command": ["/v/swapper", "/v/d", link], "volumeMounts": all});
    let part = json!([{"name": "v", "mountPath": "/part", "subPath": "d"}]);
    let victim = |i: usize| json!({"name": format!("c{i}"), "command": ["sh", "-c", "ls /part; echo x >/part/written; sleep 1000"], "volumeMounts": part});
    let victims: Vec<Value> = (0..STARTS).map(victim).collect();
    let sides = json!([gate(), side("s1", "/v/l"), side("s2", "/v/m")]);
    node.pod_with(
        "web",
        json!(victims),
        json!({"volumes": [{"name": "v", "emptyDir": {}}], "initContainers": sides}),
    );
    let volume = volume(&node).await;
    std::fs::create_dir_all(volume.join("d")).unwrap();
    std::fs::write(volume.join("d/own"), "").unwrap();
    symlink(&host, volume.join("l")).unwrap();
    symlink("../../../../../../host", volume.join("m")).unwrap();
    std::fs::copy(example("swapper"), volume.join("swapper")).unwrap();
    std::fs::write(volume.join("go"), "").unwrap();
    let settled = |s: &Value| {
        let all = s["containerStatuses"].as_array().cloned().unwrap_or_default();
        let over = |c: &Value| {
            c["state"]["running"].is_object() || c["state"]["waiting"]["message"].is_string()
        };
        all.len() == STARTS && all.iter().all(over)
    };
    let status = node.status("web", settled).await;
    for container in status["containerStatuses"].as_array().unwrap() {
        let log = node.log("web", container["name"].as_str().unwrap());
        assert!(!log.contains("secret"), "{log}");
        let message = &container["state"]["waiting"]["message"];
        let refused = "failed to prepare subPath for volumeMount \"v\" of container";
        assert!(message.is_null() || message.as_str().unwrap().starts_with(refused), "{message}");
    }
    let left: Vec<_> = std::fs::read_dir(&host).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["secret"]);
    node.delete("web").await;
    cleaned_up(&node).await;
    assert!(host.join("secret").exists());
    node.tasks.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sub_path_may_be_a_file_or_a_link_inside_and_is_made_when_missing() {
    let node = Node::start().await;
    config_map(&node, "from the map");
    let mounts = json!([
        {"name": "v", "mountPath": "/new", "subPathExpr": "$(NAME)/x"},
        {"name": "v", "mountPath": "/ro", "subPath": "c/x", "readOnly": true},
        {"name": "cm", "mountPath": "/file", "subPath": "k"},
    ]);
    let env = json!([{"name": "NAME", "value": "c"}]);
    let script = "exec 2>&1; cat /file; echo hi >/new/f; cat /ro/f; echo no >/ro/f; echo no >/file; echo done; sleep 1000";
    let container = json!({"command": ["sh", "-c", script], "volumeMounts": mounts, "env": env, "securityContext": {"runAsUser": 1000}});
    let volumes =
        json!([{"name": "v", "emptyDir": {}}, {"name": "cm", "configMap": {"name": "cm"}}]);
    node.pod_with("web", json!([container]), json!({"volumes": volumes}));
    node.status("web", running).await;
    let mut log = String::new();
    while !log.contains("done") {
        tokio::task::yield_now().await;
        log = node.log("web", "c");
    }
    assert!(log.contains("from the map") && log.contains("hi"), "{log}");
    assert_eq!(log.matches("Read-only file system").count(), 2, "{log}");
    let made = node.pod_dir("web").join("volumes/kubernetes.io~empty-dir/v/c/x");
    assert_eq!(std::fs::metadata(made).unwrap().mode() & 0o7777, 0o777);
    assert!(
        std::fs::read_dir(node.pod_dir("web").join("volume-subpaths/v")).unwrap().next().is_none()
    );
    node.delete("web").await;
    node.tasks.shutdown().await;
}

/// The message is the container's own file, whatever else is mounted at its path, and its end only.
#[tokio::test(flavor = "multi_thread")]
async fn last_words_are_the_containers_own_and_short() {
    let node = Node::start().await;
    let script = "rm -f /m/words; ln -sf /etc/passwd /m/words; \
                  /bin/busybox truncate -s 4G /m/words; echo end >>/m/words; exit 1";
    let mounts = json!([{"name": "v", "mountPath": "/m", "subPath": "d"}]);
    let container = json!({"command": ["sh", "-c", script], "terminationMessagePath": "/m/words", "volumeMounts": mounts});
    let volumes = json!([{"name": "v", "emptyDir": {}}]);
    node.pod_with("web", json!([container]), json!({"restartPolicy": "Never", "volumes": volumes}));
    let status = node.status("web", |s| s["phase"] == "Failed").await;
    let ended = &status["containerStatuses"][0]["state"]["terminated"];
    let message = ended["message"].as_str().unwrap_or_default();
    assert_eq!(message, "\0".repeat(4092) + "end\n");
    node.delete("web").await;
    node.tasks.shutdown().await;
}

/// Connections that say nothing are few for one source, and take nobody else's place.
#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_are_few() {
    use futures::FutureExt;
    use tokio::io::AsyncReadExt;
    let node = Node::start().await;
    let mut held = Vec::new();
    for _ in 0..64 {
        held.push(tokio::net::TcpStream::connect(node.address).await.unwrap());
    }
    // The idlest half was closed to make room for the others.
    let (mut closed, mut byte) = (0, [0]);
    for stream in held.iter_mut().take(32) {
        closed += usize::from(!matches!(stream.read(&mut byte).await, Ok(1..)));
    }
    assert_eq!(closed, 32);
    drop(held);
    // The node may not have seen their end yet.
    let answer = loop {
        let asked = std::panic::AssertUnwindSafe(node.pki.get(node.address, "/healthz", true));
        if let Ok(answer) = asked.catch_unwind().await {
            break answer;
        }
    };
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let unknown = node.pki.get(node.address, "/healthz", false).await;
    assert!(
        unknown.starts_with("HTTP/1.1 401") && unknown.contains("connection: close"),
        "{unknown}"
    );
    node.tasks.shutdown().await;
}

/// A pod with users of its own, on volumes of every kind.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_namespace_is_real_and_its_volumes_belong_to_it() {
    let node = Node::start().await;
    config_map(&node, "from the map");
    let mounts = json!([
        {"name": "v", "mountPath": "/v"},
        {"name": "v", "mountPath": "/part", "subPath": "a/b"},
        {"name": "m", "mountPath": "/m"},
        {"name": "cm", "mountPath": "/cm"},
    ]);
    let script = "exec 2>&1; cat /proc/self/uid_map; id; echo x >/v/f; echo y >/part/f; echo z >/m/f; cat /cm/k; \
                  ls -ln /v /part /m; echo words >/dev/termination-log; cat /etc/hosts; exit 1";
    let container = json!({"command": ["sh", "-c", script], "volumeMounts": mounts});
    let volumes = json!([{"name": "v", "emptyDir": {}}, {"name": "m", "emptyDir": {"medium": "Memory"}}, {"name": "cm", "configMap": {"name": "cm"}}]);
    node.pod_with(
        "web",
        json!([container]),
        json!({"hostUsers": false, "restartPolicy": "Never", "volumes": volumes}),
    );
    let status = node.status("web", |s| s["phase"] == "Failed").await;
    let ended = &status["containerStatuses"][0]["state"]["terminated"];
    let log = node.log("web", "c");
    assert_eq!(ended["message"], "words\n", "{log} {ended}");
    assert!(log.contains("from the map") && !log.contains("denied"), "{log}");
    assert!(!log.contains(" 4294967295\n") && log.contains(" 65536\n"), "{log}");
    let file = node.pod_dir("web").join("volumes/kubernetes.io~empty-dir/v/f");
    assert_eq!(
        std::fs::metadata(file).unwrap().uid(),
        0,
        "id-mapped: root of the pod is root of its volume"
    );
    node.delete("web").await;
    cleaned_up(&node).await;
    node.tasks.shutdown().await;
}
