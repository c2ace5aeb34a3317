//! `kubectl top`, and an autoscaler that lives on the same figures, with real load in real containers.

use crate::busybox;
use crate::harness::Cluster;

/// Uses a whole core as soon as it may; its limit is a twentieth of one.
const BURNS: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: burn}
spec:
  selector: {matchLabels: {app: burn}}
  template:
    metadata: {labels: {app: burn}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: main
        image: BUSYBOX
        command: [sh, -c, "while true; do :; done"]
        resources: {requests: {cpu: 20m, memory: 16Mi}, limits: {cpu: 50m, memory: 64Mi}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: burn}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: burn}
  minReplicas: 1
  maxReplicas: 3
  metrics:
  - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}
"#;

#[test]
fn top_tells_what_is_used_and_an_autoscaler_acts_on_it() {
    let cluster = Cluster::up("top", &[]);
    cluster.import_busybox();
    let node = cluster.kubectl(&["top", "node", "--no-headers"]);
    let cells: Vec<&str> = node.split_whitespace().collect();
    assert!(cells.len() == 5 && cells[1].ends_with('m') && cells[3].ends_with("Mi"), "{node}");
    let services = ["get", "apiservice", "v1beta1.metrics.k8s.io", "--no-headers"];
    let service = cluster.kubectl(&services);
    assert!(service.contains("Local") && service.contains("True"), "{service}");
    cluster.eventually(&["get", "serviceaccount", "default"], |out| out.contains("default"));
    cluster.kubectl_stdin(&["apply", "-f", "-"], &BURNS.replace("BUSYBOX", busybox::NAME));
    cluster.kubectl(&["wait", "--for=condition=Available", "deployment/burn", "--timeout=60s"]);
    let pods = ["top", "pod", "-l", "app=burn", "--containers", "--no-headers"];
    // Half of its limit at least: the machine may be busy with others.
    let burns = |out: &str| {
        let cpu = out.split_whitespace().nth(2).and_then(|cell| cell.strip_suffix('m'));
        cpu.and_then(|milli| milli.parse::<u32>().ok()).is_some_and(|milli| milli >= 10)
    };
    cluster.eventually(&pods, burns);
    cluster.eventually(&["get", "podmetrics"], |out| {
        let head: Vec<&str> = out.lines().next().unwrap_or("").split_whitespace().collect();
        head == ["NAME", "CPU", "MEMORY", "WINDOW"]
    });
    let replicas = ["get", "deployment", "burn", "-o", "jsonpath={.spec.replicas}"];
    cluster.eventually(&replicas, |out| out.parse::<u32>().is_ok_and(|count| count > 1));
    let events = ["get", "events", "--field-selector", "reason=SuccessfulRescale"];
    let told = cluster.eventually(&events, |out| out.contains("New size"));
    assert!(
        told.contains("cpu resource utilization (percentage of request) above target"),
        "{told}"
    );
    // Who views a namespace sees what its pods use, and nobody else does.
    cluster.kubectl(&["create", "rolebinding", "v", "--clusterrole=view", "--user=jane"]);
    let can = ["auth", "can-i", "list", "pods.metrics.k8s.io", "--as=jane"];
    cluster.eventually(&can, |out| out.trim() == "yes");
}
