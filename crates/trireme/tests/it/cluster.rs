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

    proxies_show_nothing(&cluster);

    for explained in cluster.other_kubectls(&["explain", "pod.spec.containers"]) {
        assert!(explained.contains("List of containers"), "{explained}");
    }
    for version in cluster.other_kubectls(&["exec", "echo", "--", "/trireme", "--version"]) {
        assert!(version.contains("trireme"), "SPDY and WebSocket both work: {version}");
    }

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

/// The API server proxies to pods, not to itself, and is nobody for a kubelet that is addressed as a
/// pod or by a service.
fn proxies_show_nothing(cluster: &Cluster) {
    let services = "/api/v1/namespaces/default/services";
    let itself = format!("{services}/https:kubernetes:https/proxy/api/v1/secrets");
    let told = cluster.kubectl_refused(&["get", "--raw", &itself], "");
    assert!(told.contains("no endpoints available for service"), "{told}");
    let node = cluster.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]);
    let manifest = format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: host}}, spec: {{hostNetwork: true, \
         nodeName: {node}, containers: [{{name: c, image: \"trireme.local/demo:v1\"}}]}}}}"
    );
    cluster.kubectl_stdin(&["apply", "-f", "-"], &manifest);
    cluster
        .eventually(&["get", "pod", "host", "-o", "jsonpath={.status.podIP}"], |ip| !ip.is_empty());
    let kubelet = "/api/v1/namespaces/default/pods/https:host:10250/proxy/pods";
    let told = cluster.kubectl_refused(&["get", "--raw", kubelet], "");
    assert!(told.contains("Unauthorized") || told.contains("credentials"), "{told}");
    let healthy = format!("/api/v1/nodes/{node}/proxy/healthz");
    assert_eq!(cluster.kubectl(&["get", "--raw", &healthy]), "ok");
    cluster.kubectl(&["delete", "pod", "host", "--timeout=30s"]);
}

#[test]
fn three_nodes_run_pods_that_reach_each_other() {
    let cluster = Cluster::up("tri", &["--nodes", "3"]);
    assert_eq!(cluster.status()["nodes"].as_array().map(Vec::len), Some(3));
    cluster.kubectl(&[
        "create",
        "deployment",
        "echo",
        "--image=trireme.local/demo:v1",
        "--replicas=3",
    ]);
    cluster.kubectl(&["rollout", "status", "deployment/echo", "--timeout=60s"]);
    let names = cluster.kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"]);
    for node in names.split(' ') {
        let path = format!("/api/v1/nodes/{node}/proxy/healthz");
        assert_eq!(cluster.kubectl(&["get", "--raw", &path]), "ok", "{node}'s certificate is good");
    }
    let nodes = cluster.kubectl(&["get", "pods", "-o", "jsonpath={.items[*].spec.nodeName}"]);
    let distinct: std::collections::BTreeSet<&str> = nodes.split(' ').collect();
    assert_eq!(distinct.len(), 3, "pods spread over the nodes: {nodes}");
    for pod in
        cluster.kubectl(&["get", "pods", "-o", "jsonpath={.items[*].metadata.name}"]).split(' ')
    {
        let path = format!("/api/v1/namespaces/default/pods/{pod}:8080/proxy/");
        assert!(cluster.kubectl(&["get", "--raw", &path]).contains(pod), "reached across nodes");
    }
}

#[test]
fn bad_input_gets_a_precise_answer() {
    let cluster = Cluster::up("bad", &[]);
    let refused = |input: &str, args: &[&str], wanted: &str| {
        let answer = cluster.kubectl_refused(args, input);
        assert!(answer.contains(wanted), "{answer}");
    };
    let pod =
        |spec: &str| format!("{{apiVersion: v1, kind: Pod, metadata: {{name: x}}, spec: {spec}}}");
    refused(&pod("{containers: []}"), &["create", "-f", "-"], "spec.containers: Required value");
    let unknown = pod("{containers: [{name: a, image: b, imagee: c}]}");
    refused(&unknown, &["create", "-f", "-"], "unknown field \"spec.containers[0].imagee\"");
    let wrong = pod("{containers: [{name: 1, image: b}]}");
    refused(&wrong, &["create", "--validate=false", "-f", "-"], "cannot unmarshal number");
    refused(
        "",
        &["get", "--raw", "/apis/none.example/v1/things"],
        "could not find the requested resource",
    );
    let again = cluster.trireme_fails(&["up", "--name", cluster.name()]);
    assert!(again.contains("is running already"), "{again}");
}
