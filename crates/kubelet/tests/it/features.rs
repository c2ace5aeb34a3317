//! What a pod can ask for, with real containers: files of variables, images as volumes, new resources, and
//! what the node tells of them. Needs root.

use serde_json::{Value, json};

use crate::real::Node;

fn running(status: &Value) -> bool {
    status["phase"] == "Running"
}

/// Waits until the container has printed this.
async fn printed(node: &Node, text: &str) -> String {
    loop {
        let log = node.log("web", "c");
        if log.contains(text) {
            return log;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_come_from_a_file_that_an_init_container_wrote() {
    let node = Node::start().await;
    let script =
        "printf \"A='1'\\nB='two words' # why\\n\" >/v/e; ln -s /etc/passwd /v/out; ln -s e /v/in";
    let make = json!({"name": "make", "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", script], "volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let key = |name: &str, path: &str, key: &str, optional: bool| json!({"name": name, "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": path, "key": key, "optional": optional}}});
    let env = json!([
        key("ONE", "e", "A", false),
        key("TWO", "in", "B", false),
        key("NO", "e", "C", true)
    ]);
    let volumes = json!([{"name": "v", "emptyDir": {}}]);
    let container =
        json!({"command": ["sh", "-c", "echo \"$ONE/$TWO/${NO-unset}\"; sleep 1000"], "env": env});
    node.pod_with("web", json!([container]), json!({"initContainers": [make], "volumes": volumes}));
    node.status("web", running).await;
    printed(&node, "1/two words/unset\n").await;
    let env = json!([key("ONE", "out", "root", false)]);
    let other = json!({"command": ["true"], "env": env, "name": "c"});
    node.delete("web").await;
    node.pod_with("web2", json!([other]), json!({"initContainers": [make], "volumes": volumes}));
    let waiting = |s: &Value| s["containerStatuses"][0]["state"]["waiting"].clone();
    let status =
        node.status("web2", |s| waiting(s)["reason"] == "CreateContainerConfigError").await;
    assert_eq!(waiting(&status)["message"], "couldn't parse env file", "a link leads out");
    node.delete("web2").await;
    node.tasks.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_or_a_part_of_it_is_a_volume() {
    let node = Node::start().await;
    let mounts = json!([
        {"name": "i", "mountPath": "/whole"},
        {"name": "i", "mountPath": "/part", "subPath": "bin"},
        {"name": "i", "mountPath": "/file", "subPath": "bin/busybox"},
    ]);
    let script = "exec 2>&1; ls /whole/bin/busybox /part/busybox /file; echo x >/whole/x; echo x >/part/x; echo done; sleep 1000";
    let volumes =
        json!([{"name": "i", "image": {"reference": "busybox", "pullPolicy": "IfNotPresent"}}]);
    let container = json!({"command": ["sh", "-c", script], "volumeMounts": mounts});
    node.pod_with("web", json!([container]), json!({"volumes": volumes}));
    node.status("web", running).await;
    let log = printed(&node, "done").await;
    assert!(log.contains("/whole/bin/busybox\n") && log.contains("/part/busybox\n"), "{log}");
    assert_eq!(log.matches("Read-only file system").count(), 2, "{log}");
    node.delete("web").await;
    node.tasks.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_an_image_does_not_have_is_an_error() {
    let node = Node::start().await;
    let volumes =
        json!([{"name": "i", "image": {"reference": "busybox", "pullPolicy": "IfNotPresent"}}]);
    let mounts = json!([{"name": "i", "mountPath": "/part", "subPath": "none"}]);
    let container = json!({"command": ["true"], "volumeMounts": mounts});
    node.pod_with("web", json!([container]), json!({"volumes": volumes}));
    let waiting = |s: &Value| s["containerStatuses"][0]["state"]["waiting"].clone();
    let status = node.status("web", |s| waiting(s)["reason"] == "CreateContainerError").await;
    let message = waiting(&status)["message"].as_str().unwrap().to_owned();
    assert!(message.contains("cannot find the sub path of an image volume none"), "{message}");
    node.delete("web").await;
    node.tasks.shutdown().await;
}

/// A value of the container's or the pod's cgroup, in either hierarchy.
fn cgroup(node: &Node, id: Option<&str>, v1: &str, v2: &str) -> String {
    let group = node.cgroup("web").join(id.unwrap_or(""));
    let inside = group.strip_prefix("/").unwrap();
    let controller = v1.split('.').next().unwrap();
    let paths = [
        format!("/sys/fs/cgroup/{controller}/{}/{v1}", inside.display()),
        format!("/sys/fs/cgroup/{}/{v2}", inside.display()),
    ];
    let found = paths.iter().find_map(|p| std::fs::read_to_string(p).ok());
    found.unwrap_or_else(|| panic!("none of {paths:?}")).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn cgroups_really_change() {
    let node = Node::start().await;
    let sized = |memory: &str| {
        let list = json!({"cpu": "100m", "memory": memory});
        json!({"requests": list, "limits": list})
    };
    let container = json!({"name": "c", "command": ["sleep", "1000"], "resources": sized("64Mi")});
    node.pod("web", container);
    let status = node.status("web", running).await;
    let full = status["containerStatuses"][0]["containerID"].as_str().unwrap().to_owned();
    let id = full.split("://").nth(1).unwrap().to_owned();
    let limits = || {
        let one = |id| cgroup(&node, id, "memory.limit_in_bytes", "memory.max");
        (one(Some(&*id)), one(None))
    };
    let both = |n: u64| (n.to_string(), n.to_string());
    assert_eq!(limits(), both(64 << 20));
    for memory in [128u64 << 20, 32 << 20] {
        let wish = sized(&format!("{}Mi", memory >> 20));
        node.change("web", |pod| pod["spec"]["containers"][0]["resources"] = wish.clone());
        let status = node.status("web", |s| s["containerStatuses"][0]["resources"] == wish).await;
        assert_eq!(limits(), both(memory));
        assert_eq!(status["containerStatuses"][0]["restartCount"], 0);
    }
    node.delete("web").await;
    node.tasks.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_tells_what_its_pods_use() {
    let node = Node::start().await;
    node.pod("web", json!({"command": ["sleep", "1000"]}));
    node.status("web", running).await;
    let get = async |path: &str| {
        let answer = node.pki.get(node.address, path, true).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        answer
    };
    let cadvisor = get("/metrics/cadvisor").await;
    let own = cadvisor.lines().find(|l| {
        l.starts_with("container_memory_working_set_bytes{container=\"c\",")
            && l.contains("image=\"busybox\"")
            && l.contains("namespace=\"default\",pod=\"web\"}")
    });
    assert!(own.is_some(), "{cadvisor}");
    assert!(get("/runningpods/").await.contains("\"name\":\"web\""));
    assert!(get("/configz").await.contains("KubeletConfiguration"));
    get("/healthz").await;
    let slis = get("/metrics/slis").await;
    for check in ["ping", "syncloop"] {
        let line = format!("kubernetes_healthcheck{{name=\"{check}\",type=\"healthz\"}} 1");
        assert!(slis.contains(&line), "{slis}");
    }
    assert!(slis.contains("kubernetes_healthchecks_total{name=\"ping\",status=\"success\""));
    get("/metrics/probes").await;
    let missing = node.pki.get(node.address, "/logs/none", true).await;
    assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
    let summary = get("/stats/summary").await;
    assert!(summary.contains("\"usageCoreNanoSeconds\""), "{summary}");
    node.delete("web").await;
    node.tasks.shutdown().await;
}

/// `/etc/hosts` is the kubelet's file, and the container may write to it (CVE-2020-8557).
#[tokio::test(flavor = "multi_thread")]
async fn what_a_container_writes_into_etc_hosts_is_its_pods_ephemeral_storage() {
    let node = Node::start().await;
    let script =
        "/bin/busybox dd if=/dev/zero of=/etc/hosts bs=1M count=3; echo done; exec sleep 1000";
    node.pod("web", json!({"command": ["sh", "-c", script]}));
    node.status("web", running).await;
    let used = async || {
        let answer = node.pki.get(node.address, "/stats/summary", true).await;
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        let summary: Value = serde_json::from_str(body).unwrap();
        let pod = summary["pods"][0].clone();
        assert!(pod["containers"][0]["logs"]["usedBytes"].is_u64(), "{pod}");
        pod["ephemeral-storage"]["usedBytes"].as_u64().unwrap()
    };
    let limit = std::time::Duration::from_secs(20);
    let grown = async { while used().await < 3 << 20 {} };
    tokio::time::timeout(limit, grown).await.unwrap();
    node.delete("web").await;
    node.tasks.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_what_its_user_may_see() {
    let node = Node::start().await;
    let ask = async |path: &str, token: &str| node.pki.get_as(node.address, path, token).await;
    for path in ["/metrics", "/metrics/cadvisor", "/metrics/resource", "/healthz"] {
        let answer = ask(path, "good").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    let refused = ask("/pods", "good").await;
    let said = "Forbidden (user=prometheus, verb=get, resource=nodes, subresource(s)=[pods proxy])";
    assert!(refused.starts_with("HTTP/1.1 403") && refused.ends_with(said), "{refused}");
    let refused = ask("/exec/default/web/c?command=true&output=1", "good").await;
    assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
    assert!(ask("/metrics", "bad").await.starts_with("HTTP/1.1 401"));
    node.tasks.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_tells_of_its_process_to_those_who_may_see_it() {
    let node = Node::with(|config| {
        config.component.flags.insert("max-pods".into(), "7".into());
    })
    .await;
    let status = node.pki.get(node.address, "/statusz", true).await;
    assert!(
        status.starts_with("HTTP/1.1 200") && status.contains("\nkubelet statusz\n"),
        "{status}"
    );
    assert!(status.contains("Paths: /attach /checkpoint /configz "), "{status}");
    let flags = node.pki.get(node.address, "/flagz", true).await;
    assert!(flags.contains("\nkubelet flagz\n") && flags.contains("max-pods=7\n"), "{flags}");
    for (path, what) in [("/statusz", "statusz"), ("/flagz", "configz")] {
        let refused = node.pki.get_as(node.address, path, "good").await;
        let said = format!("subresource(s)=[{what}])");
        assert!(refused.starts_with("HTTP/1.1 403") && refused.ends_with(&said), "{refused}");
    }
    node.tasks.shutdown().await;
}
