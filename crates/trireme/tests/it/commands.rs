//! What users type: every command that README and the issue promise, on one cluster.

use std::io::Write as _;
use std::process::Stdio;

use crate::background::Background;
use crate::busybox;
use crate::harness::{Cluster, eventually_http};
use crate::terminal;

const TALKER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: talker, labels: {say: one}}
spec:
  terminationGracePeriodSeconds: 1
  restartPolicy: Never
  volumes:
  - {name: self, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
  containers:
  - name: main
    image: test.local/busybox:1
    command: [sh, -c, "echo one; until [ -e /tmp/go ]; do sleep 0.05; done; echo -n two"]
    volumeMounts: [{name: self, mountPath: /self}]
---
apiVersion: v1
kind: Pod
metadata: {name: listener}
spec:
  restartPolicy: Never
  containers:
  - {name: main, image: "test.local/busybox:1", command: [cat], stdin: true, stdinOnce: true}
"#;

#[test]
fn every_command_does_what_it_says() {
    let cluster = Cluster::up("cmd", &[]);
    cluster.import_busybox();
    cluster.eventually(&["get", "serviceaccount", "default"], |out| out.contains("default"));
    about_the_cluster(&cluster);

    let mut watch = Background::start(cluster.kubectl_command_for(&["get", "pods", "-w"]));
    cluster.kubectl_stdin(&["apply", "-f", "-"], TALKER);
    watch.until(|line| line.starts_with("talker") && line.contains("Running"));
    cluster.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "pod/talker",
        "pod/listener",
        "--timeout=30s",
    ]);

    on_a_terminal(&cluster);
    labels_reach_the_volume(&cluster);
    logs_follow(&cluster);
    attach(&cluster);

    cluster.kubectl(&["create", "deployment", "web", "--image=trireme.local/demo:v1"]);
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    forward(&cluster);
    diff_and_edit(&cluster);
    pause_and_resume(&cluster);
    load_balancer(&cluster);
}

fn about_the_cluster(cluster: &Cluster) {
    assert!(cluster.kubectl(&["cluster-info"]).contains("control plane"));
    assert!(cluster.kubectl(&["version"]).contains("Server Version: v1.36"));
    let resources = cluster.kubectl(&["api-resources", "-o", "wide"]);
    let deployments = resources.lines().find(|l| l.starts_with("deployments ")).unwrap_or("");
    for word in ["deploy", "apps/v1", "Deployment", "patch", "all"] {
        assert!(deployments.contains(word), "{deployments}");
    }
    let node = cluster.kubectl(&[
        "get",
        "nodes",
        "--field-selector=spec.unschedulable=false",
        "-o",
        "name",
    ]);
    assert!(node.starts_with("node/"), "a flag that is left out is false: {node:?}");
}

fn on_a_terminal(cluster: &Cluster) {
    let mut command = cluster.kubectl_command_for(&["exec", "-it", "talker", "--", "sh"]);
    // The size comes after the start, so it is asked for until it has come.
    let typed =
        "until stty size | grep -q '33 77'; do sleep 0.05; done\necho size-$((40+2))\nexit 7\n";
    let (shown, status) = terminal::run(&mut command, (33, 77), typed);
    assert!(shown.contains("size-42"), "{shown}");
    assert_eq!(status.code(), Some(7), "{shown}");
    // Two streams, and an exit code, without a terminal.
    let refused =
        cluster.kubectl_fails_with(&["exec", "talker", "--", "sh", "-c", "echo no >&2; exit 3"]);
    assert_eq!(refused.0, Some(3));
    assert!(refused.1.contains("no"), "{}", refused.1);
}

fn labels_reach_the_volume(cluster: &Cluster) {
    let generation = ["get", "pod", "talker", "-o", "jsonpath={.metadata.generation}"];
    assert_eq!(cluster.kubectl(&generation), "1", "binding is no change of the specification");
    cluster.kubectl(&["label", "--overwrite", "pod", "talker", "say=two"]);
    cluster.eventually(&["exec", "talker", "--", "cat", "/self/labels"], |l| l == "say=\"two\"");
}

fn logs_follow(cluster: &Cluster) {
    let mut follow = Background::start(cluster.kubectl_command_for(&["logs", "-f", "talker"]));
    assert_eq!(follow.line().as_deref(), Some("one"));
    cluster.kubectl(&["exec", "talker", "--", "touch", "/tmp/go"]);
    assert_eq!(follow.line().as_deref(), Some("two"));
    assert_eq!(follow.line(), None, "the end of the container is the end of its log");
    assert_eq!(cluster.kubectl(&["logs", "talker"]), "one\ntwo", "an unfinished line stays one");
}

fn attach(cluster: &Cluster) {
    let said = cluster.kubectl_stdin(&["attach", "-i", "-q", "listener"], "to the listener\n");
    assert_eq!(said, "to the listener\n");
    let phase = "jsonpath={.status.phase}=Succeeded";
    cluster.kubectl(&["wait", &format!("--for={phase}"), "pod/listener", "--timeout=30s"]);
}

fn forward(cluster: &Cluster) {
    let forward = cluster.kubectl_command_for(&["port-forward", "deployment/web", ":8080"]);
    let mut forward = Background::start(forward);
    let said = forward.line().expect("it says where");
    let port = said.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next());
    let port: u16 = port.and_then(|p| p.parse().ok()).expect("a port");
    assert!(eventually_http(port).contains("version: v1"));
}

fn diff_and_edit(cluster: &Cluster) {
    let manifest = cluster.kubectl(&["get", "deployment", "web", "-o", "yaml"]);
    let changed = manifest.replace("replicas: 1", "replicas: 2");
    let mut diff = cluster.kubectl_command_for(&["diff", "-f", "-"]);
    let mut child = diff.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs");
    child.stdin.take().expect("piped").write_all(changed.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("it ends");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "a difference is told by the exit code");
    assert!(shown.contains("-  replicas: 1") && shown.contains("+  replicas: 2"), "{shown}");

    let mut edit = cluster.kubectl_command_for(&["edit", "deployment", "web"]);
    edit.env("KUBE_EDITOR", "sed -i 's/replicas: 1$/replicas: 2/'");
    let output = edit.output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    cluster.kubectl(&[
        "wait",
        "--for=jsonpath={.status.readyReplicas}=2",
        "deployment/web",
        "--timeout=30s",
    ]);
}

fn pause_and_resume(cluster: &Cluster) {
    cluster.kubectl(&["rollout", "pause", "deployment/web"]);
    cluster.kubectl(&["set", "image", "deployment/web", "demo=trireme.local/demo:v2"]);
    let seen = "jsonpath={.metadata.generation} {.status.observedGeneration}";
    cluster.eventually(&["get", "deployment", "web", "-o", seen], |shown| {
        shown.split_once(' ').is_some_and(|(wanted, seen)| wanted == seen)
    });
    let sets = ["get", "replicasets", "-l", "app=web", "-o", "name"];
    assert_eq!(cluster.kubectl(&sets).lines().count(), 1, "paused: nothing new");
    cluster.kubectl(&["rollout", "resume", "deployment/web"]);
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    assert_eq!(cluster.kubectl(&sets).lines().count(), 2);
}

/// A load balancer is on the host's loopback under its own port.
fn load_balancer(cluster: &Cluster) {
    let port = free_port();
    let ports = [format!("--port={port}"), "--target-port=8080".into()];
    let expose =
        ["expose", "deployment/web", "--name=lb", "--type=LoadBalancer", &ports[0], &ports[1]];
    cluster.kubectl(&expose);
    let told = ["get", "service", "lb", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}"];
    cluster.eventually(&told, |ip| ip == "127.0.0.1");
    assert!(eventually_http(port).contains("version: v2"));
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

#[test]
fn what_is_owned_goes_or_stays_as_asked() {
    let cluster = Cluster::up("gc", &[]);
    let make = |name: &str| {
        cluster.kubectl(&[
            "create",
            "deployment",
            name,
            "--image=trireme.local/demo:v1",
            "--replicas=2",
        ]);
        cluster.kubectl(&["rollout", "status", &format!("deployment/{name}"), "--timeout=60s"]);
    };
    let owned = |name: &str| {
        ["get", "replicasets,pods", "-o", "name", "-l", &format!("app={name}")].map(str::to_owned)
    };
    let count = |name: &str| {
        let args = owned(name);
        cluster.kubectl(&args.each_ref().map(String::as_str)).lines().count()
    };
    make("first");
    cluster.kubectl(&["delete", "deployment", "first", "--cascade=foreground", "--timeout=60s"]);
    assert_eq!(count("first"), 0, "in the foreground the owner goes last");

    make("second");
    cluster.kubectl(&["delete", "deployment", "second", "--cascade=background", "--timeout=60s"]);
    let args = owned("second");
    cluster.eventually(&args.each_ref().map(String::as_str), str::is_empty);

    make("third");
    cluster.kubectl(&["delete", "deployment", "third", "--cascade=orphan", "--timeout=60s"]);
    assert_eq!(count("third"), 3, "orphans stay");
    let owners = [
        "get",
        "replicasets",
        "-l",
        "app=third",
        "-o",
        "jsonpath={.items[*].metadata.ownerReferences}",
    ];
    assert_eq!(cluster.kubectl(&owners), "");
    // A set adopts its pods still, and is replaced by nobody.
    cluster.kubectl(&["delete", "replicasets", "-l", "app=third", "--cascade=orphan"]);
    assert_eq!(count("third"), 2);
}

#[test]
fn clusters_stand_side_by_side_and_pull_from_a_registry() {
    let host = crate::netns::Netns::new();
    let folder = tempfile::tempdir().expect("a folder");
    let archive = busybox::archive(folder.path());
    let _registry = registry(&host, folder.path());
    // `skopeo` waits for nobody, so the registry is asked first.
    host.run(
        "curl",
        &[
            "-sf",
            "--retry",
            "50",
            "--retry-connrefused",
            "--retry-delay",
            "0",
            "http://127.0.0.1:5000/v2/",
        ],
    );
    let from = format!("docker-archive:{}", archive.display());
    let copy = [
        "copy",
        "--insecure-policy",
        "--dest-tls-verify=false",
        &from,
        "docker://127.0.0.1:5000/bb:1",
    ];
    host.run("skopeo", &copy);

    let mirrors = folder.path().join("registries.yaml");
    let text = "mirrors: {\"registry.invalid\": {endpoint: [\"http://127.0.0.1:5000\"]}}\n";
    std::fs::write(&mirrors, text).expect("written");
    let flags =
        [format!("--private-registry={}", mirrors.display()), "--runtime-handler=runc".to_owned()];
    let first = Cluster::inside("side", host, &flags.each_ref().map(String::as_str));
    let second = first.beside("too");
    assert_ne!(first.status()["server"], second.status()["server"]);
    for cluster in [&first, &second] {
        cluster.kubectl(&["run", "bb", "--image=127.0.0.1:5000/bb:1", "--restart=Never"]);
        cluster.kubectl(&["wait", "--for=condition=Ready", "pod/bb", "--timeout=30s"]);
        assert!(cluster.kubectl(&["describe", "pod", "bb"]).contains("Successfully pulled image"));
    }
    second.trireme(&["down", "--name", second.name()]);
    assert_eq!(first.kubectl(&["exec", "bb", "--", "echo", "still"]), "still\n");

    let image = |args: &[&str]| first.trireme(&[&["image", "--name", first.name()], args].concat());
    first.kubectl(&["delete", "pod", "bb", "--now"]);
    image(&["remove", "127.0.0.1:5000/bb:1"]);
    assert!(!image(&["list"]).contains("127.0.0.1:5000/bb:1"));
    assert!(image(&["pull", "127.0.0.1:5000/bb:1"]).contains("127.0.0.1:5000/bb:1"));
    images_are_handled(image, folder.path());
    runc_runs_pods_of_its_class(&first);
}

/// By a running cluster's `trireme image`, with mirrors that its flag has named.
fn images_are_handled(image: impl Fn(&[&str]) -> String, folder: &std::path::Path) {
    let is_pinned = |name: &str, list: &str| {
        let line = list.lines().find(|line| line.starts_with(name)).expect("it is listed");
        line.ends_with("yes")
    };
    let name = "127.0.0.1:5000/bb:1";
    assert!(!is_pinned(name, &image(&["list"])));
    assert!(is_pinned(name, &image(&["pin", name])));
    assert!(!is_pinned(name, &image(&["unpin", name])));
    let pushed = image(&["push", name, "--as", "127.0.0.1:5000/copy:2"]);
    let digest = pushed.trim().strip_prefix("127.0.0.1:5000/copy@sha256:");
    assert_eq!(digest.map(str::len), Some(64), "{pushed}");
    let archive = folder.join("exported.tar").display().to_string();
    image(&["export", name, &archive, "--as", "exported.local/bb:3"]);
    let listed = std::process::Command::new("skopeo")
        .args(["inspect", "--format", "{{.Digest}}", &format!("oci-archive:{archive}")])
        .output()
        .expect("skopeo is installed");
    assert_eq!(
        String::from_utf8_lossy(&listed.stdout).trim(),
        pushed.trim().split_once('@').map_or("", |(_, digest)| digest)
    );
    image(&["remove", name]);
    let imported = image(&["import", &archive]);
    assert!(is_pinned("exported.local/bb:3", &imported), "{imported}");
    assert!(image(&["pull", "registry.invalid/copy:2"]).contains("registry.invalid/copy:2"));
}

/// RuntimeClass, from the flag to the pod.
fn runc_runs_pods_of_its_class(cluster: &Cluster) {
    let handlers = "jsonpath={.items[0].status.runtimeHandlers[*].name}";
    assert_eq!(cluster.kubectl(&["get", "nodes", "-o", handlers]).trim(), "runc trireme");
    let manifest = r#"
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: runc}
handler: runc
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: absent}
handler: kata
---
apiVersion: v1
kind: Pod
metadata: {name: of-runc}
spec:
  runtimeClassName: runc
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: "registry.invalid/copy:2", command: [sh, -c, "echo hello; exec sleep 1000"]}
---
apiVersion: v1
kind: Pod
metadata: {name: of-none}
spec:
  runtimeClassName: absent
  containers:
  - {name: main, image: "registry.invalid/copy:2", command: [sleep, "1000"]}
"#;
    cluster.kubectl_stdin(&["apply", "-f", "-"], manifest);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/of-runc", "--timeout=60s"]);
    assert_eq!(cluster.kubectl(&["exec", "of-runc", "--", "echo", "inside"]), "inside\n");
    assert_eq!(cluster.kubectl(&["logs", "of-runc"]), "hello\n");
    let refused = |said: &str| said.contains("kata") && said.contains("FailedCreatePodSandBox");
    cluster.eventually(&["describe", "pod", "of-none"], refused);
    cluster.kubectl(&["delete", "pod", "of-runc", "of-none", "--timeout=30s"]);
}

/// Debian's registry on port 5000 of the namespace.
fn registry(host: &crate::netns::Netns, folder: &std::path::Path) -> Background {
    let config = folder.join("registry.yml");
    let data = folder.join("registry");
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:5000}}\n",
        data.display()
    );
    std::fs::write(&config, text).expect("written");
    let mut command = host.command("docker-registry");
    command.arg("serve").arg(&config);
    Background::start(command)
}
