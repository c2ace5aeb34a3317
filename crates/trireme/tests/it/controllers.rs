//! Jobs, CronJobs, StatefulSets and DaemonSets, with real containers.

use crate::busybox;
use crate::harness::Cluster;

const JOB: &str = r#"
apiVersion: batch/v1
kind: Job
metadata: {name: count}
spec:
  completions: 3
  parallelism: 2
  completionMode: Indexed
  ttlSecondsAfterFinished: 3600
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 1
      containers:
      - {name: main, image: BUSYBOX, command: [sh, -c, "echo index $JOB_COMPLETION_INDEX"]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: fails}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers:
      - {name: main, image: BUSYBOX, command: [sh, -c, "exit 3"]}
"#;

const CRON: &str = r#"
apiVersion: batch/v1
kind: CronJob
metadata: {name: tick}
spec:
  schedule: "*/1 * * * *"
  timeZone: Etc/UTC
  concurrencyPolicy: Forbid
  successfulJobsHistoryLimit: 1
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers:
          - {name: main, image: BUSYBOX, command: ["true"]}
"#;

const SETS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 3
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: main, image: BUSYBOX, command: [sleep, "3600"], env: [{name: VERSION, value: one}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: main, image: BUSYBOX, command: [sleep, "3600"]}
"#;

#[test]
fn workloads_run_to_their_end_or_stay() {
    let cluster = Cluster::up("workloads", &["--nodes", "2"]);
    cluster.import_busybox();
    let apply = |manifest: &str| {
        cluster.kubectl_stdin(&["apply", "-f", "-"], &manifest.replace("BUSYBOX", busybox::NAME))
    };
    apply(JOB);
    apply(SETS);
    jobs(&cluster);
    stateful(&cluster);
    daemons(&cluster);
    apply(CRON);
    cron(&cluster);
    for kind in ["cronjob/tick", "job/count", "job/fails", "statefulset/db", "daemonset/agent"] {
        cluster.kubectl(&["delete", kind, "--timeout=60s"]);
    }
    cluster.eventually(&["get", "pods", "--no-headers"], str::is_empty);
}

fn jobs(cluster: &Cluster) {
    cluster.kubectl(&["wait", "--for=condition=Complete", "job/count", "--timeout=60s"]);
    let status = "jsonpath={.status.succeeded} {.status.completedIndexes}";
    assert_eq!(cluster.kubectl(&["get", "job", "count", "-o", status]), "3 0-2");
    let logs = cluster.kubectl(&["logs", "-l", "job-name=count", "--tail=-1"]);
    let mut lines: Vec<&str> = logs.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["index 0", "index 1", "index 2"]);
    cluster.kubectl(&["wait", "--for=condition=Failed", "job/fails", "--timeout=60s"]);
    let reason = "jsonpath={.status.conditions[?(@.type==\"Failed\")].reason}";
    assert_eq!(cluster.kubectl(&["get", "job", "fails", "-o", reason]), "BackoffLimitExceeded");
}

fn stateful(cluster: &Cluster) {
    let rolled = ["rollout", "status", "statefulset/db", "--timeout=90s"];
    cluster.kubectl(&rolled);
    assert_eq!(cluster.kubectl(&["exec", "db-1", "--", "cat", "/etc/hostname"]).trim(), "db-1");
    cluster.kubectl(&["set", "env", "statefulset/db", "VERSION=two"]);
    cluster.kubectl(&rolled);
    assert_eq!(version(cluster), "two");
    cluster.kubectl(&["scale", "statefulset/db", "--replicas=1"]);
    cluster
        .eventually(&["get", "pods", "-l", "app=db", "-o", "name"], |out| out.trim() == "pod/db-0");
    cluster.kubectl(&["rollout", "undo", "statefulset/db"]);
    cluster.kubectl(&rolled);
    assert_eq!(version(cluster), "one");
}

fn version(cluster: &Cluster) -> String {
    let said = cluster.kubectl(&["exec", "db-0", "--", "sh", "-c", "echo $VERSION"]);
    said.trim().to_owned()
}

fn daemons(cluster: &Cluster) {
    cluster.kubectl(&["rollout", "status", "daemonset/agent", "--timeout=60s"]);
    let ready = "jsonpath={.status.numberReady} {.status.desiredNumberScheduled}";
    assert_eq!(cluster.kubectl(&["get", "daemonset", "agent", "-o", ready]), "2 2");
}

/// A Job made by hand counts as the CronJob's; its own come with the next minute.
fn cron(cluster: &Cluster) {
    cluster.kubectl(&["create", "job", "now", "--from=cronjob/tick"]);
    cluster.kubectl(&["wait", "--for=condition=Complete", "job/now", "--timeout=60s"]);
    let successful = ["get", "cronjob", "tick", "-o", "jsonpath={.status.lastSuccessfulTime}"];
    cluster.eventually(&successful, |out| !out.trim().is_empty());
    let scheduled = ["get", "cronjob", "tick", "-o", "jsonpath={.status.lastScheduleTime}"];
    cluster.eventually(&scheduled, |out| !out.trim().is_empty());
    let created = ["get", "events", "-o", "jsonpath={.items[*].message}"];
    assert!(cluster.kubectl(&created).contains("Created job tick-"));
}
