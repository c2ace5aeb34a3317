//! Pods that attack their node through volumes, and pods that a node must not take, on a real cluster.

use std::path::PathBuf;

use crate::busybox;
use crate::harness::Cluster;

/// A directory of the host's beside the cluster's own.
fn victim(cluster: &Cluster) -> PathBuf {
    let folder = cluster.kubeconfig().with_file_name("victim");
    std::fs::create_dir_all(folder.join("below")).expect("a folder");
    std::fs::write(folder.join("secret"), "of the host").expect("written");
    folder
}

fn is_whole(victim: &std::path::Path) -> bool {
    let mut names: Vec<_> = std::fs::read_dir(victim)
        .expect("the victim is there")
        .map(|e| e.expect("an entry").file_name())
        .collect();
    names.sort();
    names == ["below", "secret"]
}

/// A pod that Pod Security's `restricted` allows.
fn restricted(name: &str, begin: &str, script: &str, rest: &str) -> String {
    let none = "{allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}";
    let mounts = "[{name: cm, mountPath: /cm}, {name: v, mountPath: /v}]";
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {{runAsNonRoot: true, runAsUser: 1000, seccompProfile: {{type: RuntimeDefault}}}}
  volumes: [{{name: cm, configMap: {{name: cm}}}}, {{name: v, emptyDir: {{}}}}]
  initContainers:
  - {{name: begin, image: "{0}", command: [sh, -c, "{begin}"], securityContext: {none}, volumeMounts: {mounts}}}
  containers:
  - {{name: c, image: "{0}", command: [sh, -c, "{script}"], securityContext: {none}, volumeMounts: {mounts}}}
{rest}"#,
        busybox::NAME
    )
}

/// CVE-2017-1002102, CVE-2021-25741 and CVE-2017-1002101, as uid 1000 without any right.
#[test]
fn a_restricted_pod_gets_nothing_of_the_host_through_its_volumes() {
    let cluster = Cluster::up("avol", &[]);
    cluster.import_busybox();
    let victim = victim(&cluster);
    cluster.kubectl(&["label", "ns", "default", "pod-security.kubernetes.io/enforce=restricted"]);
    cluster.eventually(&["get", "serviceaccount", "default"], |out| out.contains("default"));
    cluster.kubectl(&["create", "configmap", "cm", "--from-literal=k=one"]);
    let up = "../".repeat(20);
    let at = victim.display();
    let begin = format!(
        "mkdir /v/d; busybox ln -s {up}{at} /v/l; busybox ln -s {at} /v/m; \
         exec 2>&1; busybox ln -sfn {up}{at} /cm/..data; touch /cm/k; mkdir /cm/new; echo ready"
    );
    let script = "while true; do busybox mv /v/d /v/x; busybox mv /v/l /v/d; \
                  busybox mv /v/d /v/l; busybox mv /v/x /v/d; done";
    // `d` and `l` are exchanged under the kubelet's eyes; `m` stays a link out of the volume.
    let subpaths = ["d", "d/new", "l", "m", "m/below"];
    let parts: String = (0..15)
        .map(|i| {
            format!(
                "  - name: c{i}\n    image: \"{}\"\n    command: [sh, -c, \"ls /p; sleep 1000\"]\n    \
                 securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}\n    \
                 volumeMounts: [{{name: v, mountPath: /p, subPath: {}}}]\n",
                busybox::NAME,
                subpaths[i % 5]
            )
        })
        .collect();
    cluster.kubectl_stdin(&["apply", "-f", "-"], &restricted("evil", &begin, script, &parts));
    let log = cluster.eventually(&["logs", "evil", "-c", "begin"], |out| out.contains("ready"));
    assert!(log.matches("Read-only file system").count() >= 2, "{log}");

    cluster.kubectl(&["patch", "configmap", "cm", "-p", r#"{"data":{"k":"two"}}"#]);
    let read = ["exec", "evil", "-c", "c", "--", "cat", "/cm/k"];
    cluster.eventually(&read, |out| out == "two");
    let states = [
        "get",
        "pod",
        "evil",
        "-o",
        "jsonpath={range .status.containerStatuses[*]}{.name}={.state.waiting.message}{.state.running.startedAt}\n{end}",
    ];
    let settled = |out: &str| out.lines().count() == 16 && !out.lines().any(|l| l.ends_with('='));
    let states = cluster.eventually(&states, settled);
    for i in (0..15).filter(|i| states.contains(&format!("c{i}=2"))) {
        let shown = cluster.kubectl_until(&["logs", "evil", "-c", &format!("c{i}")]);
        assert!(!shown.contains("secret"), "{shown}");
    }
    for i in (0..15).filter(|i| subpaths[i % 5].starts_with('m')) {
        let refused = states.contains(&format!("c{i}=failed"));
        assert!(refused, "a link out of the volume is refused: {states}");
    }
    assert!(is_whole(&victim));

    // A process that is killed leaves nothing that the next one would trip over.
    cluster.kill();
    cluster.start(&[]);
    cluster.kubectl(&["delete", "pod", "evil", "--timeout=60s"]);
    assert!(is_whole(&victim));
    let pods = cluster.kubeconfig().with_file_name("n1").join("kubelet/pods");
    let start = std::time::Instant::now();
    while std::fs::read_dir(&pods).is_ok_and(|mut d| d.next().is_some()) {
        assert!(start.elapsed().as_secs() < 60, "the pod's directory stays");
        std::thread::yield_now();
    }
}

/// Upstream's `[sig-node] ... should reject pod admission` kinds, one of each.
#[test]
fn a_node_refuses_by_name_what_it_cannot_give() {
    let cluster = Cluster::up("aadm", &[]);
    cluster.import_busybox();
    cluster.eventually(&["get", "serviceaccount", "default"], |out| out.contains("default"));
    let node = cluster.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]);
    let image = busybox::NAME;
    let run = |name: &str, spec: &str, container: &str| {
        let pod = format!(
            r#"{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 0, {spec} containers: [{{name: c, image: "{image}", command: [sleep, "1000"], {container}}}]}}}}"#
        );
        cluster.kubectl_stdin(&["apply", "-f", "-"], &pod);
    };
    let there = format!("nodeName: {node},");
    run("cpu", &there, r#"resources: {requests: {cpu: "999"}}"#);
    run("labels", &format!("{there} nodeSelector: {{disk: ssd}},"), "");
    run("first", &there, "ports: [{containerPort: 1, hostPort: 3333}]");
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/first", "--timeout=30s"]);
    run("ports", &there, "ports: [{containerPort: 1, hostPort: 3333}]");
    let unsafe_sysctl = r#"securityContext: {sysctls: [{name: kernel.msgmax, value: "65536"}]},"#;
    run("sysctl", unsafe_sysctl, "");
    run("os", &format!("{there} os: {{name: windows}},"), "");
    for (name, reason) in [
        ("cpu", "OutOfcpu"),
        ("labels", "NodeAffinity"),
        ("ports", "NodePorts"),
        ("sysctl", "SysctlForbidden"),
        ("os", "PodOSNotSupported"),
    ] {
        let state = [
            "get",
            "pod",
            name,
            "-o",
            "jsonpath={.status.phase} {.status.reason} {.status.message}",
        ];
        let wanted = format!("Failed {reason} Pod was rejected: ");
        cluster.eventually(&state, |out| out.starts_with(&wanted));
        let about = format!("--field-selector=involvedObject.name={name},reason={reason}");
        cluster.eventually(&["get", "events", &about], |out| out.contains("Warning"));
        cluster.kubectl(&["delete", "pod", name, "--timeout=30s"]);
    }
    run("root", "", "securityContext: {runAsNonRoot: true}");
    let waiting = [
        "get",
        "pod",
        "root",
        "-o",
        "jsonpath={.status.containerStatuses[0].state.waiting.message}",
    ];
    cluster.eventually(&waiting, |out| {
        out.starts_with(
            "container has runAsNonRoot and image will run as root (pod: \"root_default(",
        )
    });
    // What was taken is not judged again when the node's agent restarts.
    cluster.kubectl(&["taint", "node", &node, "k=v:NoSchedule"]);
    cluster.kill();
    cluster.start(&[]);
    let state = cluster.kubectl(&["get", "pod", "first", "-o", "jsonpath={.status.phase}"]);
    assert_eq!(state, "Running");
}
