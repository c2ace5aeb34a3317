//! One-node clusters.

use crate::harness::Cluster;

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: echo, labels: {app: echo}}
spec:
  containers:
  - {name: echo, image: "trireme.local/demo:v1", ports: [{containerPort: 8080}]}
"#;

#[test]
fn a_pod_lives_its_whole_life() {
    let cluster = Cluster::up("pod", &[]);
    let status = cluster.status();
    assert_eq!(status["name"], cluster.name());
    assert!(status["server"].as_str().is_some_and(|s| s.starts_with("https://127.0.0.1:")));
    assert!(cluster.kubectl(&["get", "nodes", "-o", "wide"]).contains("Ready"));
    assert_eq!(cluster.kubectl(&["get", "--raw", "/healthz"]), "ok");
    assert!(cluster.kubectl(&["explain", "pod.spec.containers"]).contains("List of containers"));

    cluster.eventually(&["get", "serviceaccount", "default"], |out| out.contains("default"));
    cluster.kubectl_stdin(&["apply", "-f", "-"], POD);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/echo", "--timeout=30s"]);
    assert!(cluster.kubectl(&["describe", "pod", "echo"]).contains("Started"));
    assert!(cluster.kubectl(&["logs", "echo"]).contains("demo v1 on echo"));
    assert!(cluster.kubectl(&["exec", "echo", "--", "/trireme", "--version"]).contains("trireme"));
    let answer =
        cluster.kubectl(&["get", "--raw", "/api/v1/namespaces/default/pods/echo:8080/proxy/x"]);
    assert!(answer.contains("host: echo") && answer.contains("request: GET /x"), "{answer}");

    cluster.kill();
    cluster.start(&[]);
    let pod = cluster.kubectl(&["get", "pod", "echo"]);
    assert!(pod.contains("Running"), "{pod}");
    let restarts = cluster.kubectl(&[
        "get",
        "pod",
        "echo",
        "-o",
        "jsonpath={.status.containerStatuses[0].restartCount}",
    ]);
    assert_eq!(restarts, "0", "the container must not be touched");
    assert!(cluster.kubectl(&["logs", "echo"]).contains("demo v1"));
    assert!(cluster.kubectl(&["exec", "echo", "--", "/trireme", "--version"]).contains("trireme"));

    cluster.kubectl(&["delete", "pod", "echo", "--timeout=30s"]);
    assert!(!cluster.kubectl(&["get", "pods"]).contains("echo"));
}
