//! Deployments, services, DNS and the interactive commands, on one cluster.

use crate::busybox;
use crate::harness::Cluster;

const SHOP: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: shop}
data: {greeting: hello}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: "trireme.local/demo:v1"
        ports: [{containerPort: 8080, name: http}]
        envFrom: [{configMapRef: {name: settings}}]
        readinessProbe: {httpGet: {path: /readyz, port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
"#;

#[test]
fn a_shop_is_deployed_used_and_changed() {
    let cluster = Cluster::up("shop", &[]);
    let folder = tempfile::tempdir().expect("a folder");
    let archive = busybox::archive(folder.path());
    let images =
        cluster.trireme(&["image", "--name", cluster.name(), "import", &archive.to_string_lossy()]);
    assert!(images.contains(busybox::NAME), "{images}");

    apply_thrice(&cluster);
    services_answer(&cluster);
    host_ports_answer(&cluster);
    interactive_commands(&cluster, folder.path());
    rollouts(&cluster);
    repairs(&cluster);

    cluster.kubectl(&["delete", "namespace", "shop", "--timeout=60s"]);
    assert!(!cluster.kubectl(&["get", "pods", "-A"]).contains("shop"));
}

fn apply_thrice(cluster: &Cluster) {
    let first = cluster.kubectl_stdin(&["apply", "-f", "-"], SHOP);
    assert!(first.contains("deployment.apps/web created"), "{first}");
    let second = cluster.kubectl_stdin(&["apply", "-f", "-"], SHOP);
    assert_eq!(second.matches("unchanged").count(), 4, "{second}");
    rolled_out(cluster);
    let third = cluster.kubectl_stdin(&["apply", "-f", "-"], &SHOP.replace("demo:v1", "demo:v2"));
    assert!(third.contains("deployment.apps/web configured"), "{third}");
    rolled_out(cluster);
    let applied = cluster
        .kubectl_stdin(&["apply", "--server-side", "-f", "-"], &SHOP.replace("demo:v1", "demo:v2"));
    assert_eq!(applied.matches("serverside-applied").count(), 4, "{applied}");
}

fn rolled_out(cluster: &Cluster) {
    cluster.kubectl(&["-n", "shop", "rollout", "status", "deployment/web", "--timeout=60s"]);
}

fn services_answer(cluster: &Cluster) {
    cluster.kubectl(&["run", "bb", "--image", busybox::NAME, "--restart=Never"]);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/bb", "--timeout=30s"]);
    let looked_up =
        cluster.kubectl(&["exec", "bb", "--", "nslookup", "kubernetes.default.svc.cluster.local"]);
    assert!(looked_up.contains("10.43.0.1"), "{looked_up}");
    let mut hosts = std::collections::BTreeSet::new();
    for _ in 0..40 {
        let answer = cluster.kubectl(&["exec", "bb", "--", "wget", "-qO-", "http://web.shop/"]);
        hosts.insert(answer.lines().next().unwrap_or("").to_owned());
    }
    assert_eq!(hosts.len(), 3, "40 draws over 3 endpoints: {hosts:?}");
    let ip = cluster.kubectl(&[
        "-n",
        "shop",
        "get",
        "service",
        "web",
        "-o",
        "jsonpath={.spec.clusterIP}",
    ]);
    let answer = cluster.kubectl(&["exec", "bb", "--", "wget", "-qO-", &format!("http://{ip}/")]);
    assert!(answer.contains("version: v2") && answer.contains("env greeting=hello"), "{answer}");
}

/// Node ports and load balancers are on the host's loopback.
fn host_ports_answer(cluster: &Cluster) {
    cluster.kubectl(&[
        "-n",
        "shop",
        "expose",
        "deployment/web",
        "--name=door",
        "--port=8080",
        "--type=NodePort",
    ]);
    let path = ["-n", "shop", "get", "service", "door", "-o", "jsonpath={.spec.ports[0].nodePort}"];
    let port: u16 = cluster.kubectl(&path).parse().expect("a port");
    let answer = crate::harness::eventually_http(port);
    assert!(answer.contains("version: v2"), "{answer}");
}

fn interactive_commands(cluster: &Cluster, folder: &std::path::Path) {
    let file = folder.join("note");
    std::fs::write(&file, "a note").expect("written");
    cluster.kubectl(&["cp", &file.to_string_lossy(), "bb:/tmp/note"]);
    assert_eq!(cluster.kubectl(&["exec", "bb", "--", "cat", "/tmp/note"]), "a note");
    let back = folder.join("back");
    cluster.kubectl(&["cp", "bb:/tmp/note", &back.to_string_lossy()]);
    assert_eq!(std::fs::read_to_string(back).expect("copied"), "a note");
    assert_eq!(cluster.kubectl_stdin(&["exec", "-i", "bb", "--", "cat"], "through"), "through");
}

fn rollouts(cluster: &Cluster) {
    let shop = |args: &[&str]| cluster.kubectl(&[&["-n", "shop"], args].concat());
    shop(&["set", "image", "deployment/web", "web=trireme.local/demo:v1"]);
    rolled_out(cluster);
    assert!(shop(&["rollout", "history", "deployment/web"]).contains("3"));
    shop(&["rollout", "undo", "deployment/web"]);
    rolled_out(cluster);
    assert!(shop(&["get", "deployment", "web", "-o", "wide"]).contains("demo:v2"));
    shop(&["scale", "deployment/web", "--replicas=1"]);
    cluster
        .eventually(&["-n", "shop", "get", "pods", "--no-headers"], |out| out.lines().count() == 1);
}

/// A killed process is started again, a deleted pod replaced.
fn repairs(cluster: &Cluster) {
    cluster.eventually(&["get", "--raw", "/api/v1/namespaces/shop/services/web/proxy/"], |out| {
        out.contains("host:")
    });
    let path = ["-n", "shop", "get", "pods", "-o", "jsonpath={.items[0].metadata.name}"];
    let pod = cluster.kubectl(&path);
    // The connection ends with the process, so the request itself fails.
    cluster.kubectl_fails(&[
        "get",
        "--raw",
        &format!("/api/v1/namespaces/shop/pods/{pod}:8080/proxy/exit"),
    ]);
    let restarts = [
        "-n",
        "shop",
        "get",
        "pods",
        "-o",
        "jsonpath={.items[0].status.containerStatuses[0].restartCount}",
    ];
    cluster.eventually(&restarts, |out| out == "1");
    cluster.kubectl(&["-n", "shop", "delete", "pod", &pod, "--timeout=30s"]);
    rolled_out(cluster);
    assert_ne!(cluster.kubectl(&path), pod);
}
