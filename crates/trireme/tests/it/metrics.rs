//! `docs/metrics.md` says what is true: every figure that it lists is told, with its labels, and upstream's list has
//! no other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::busybox;
use crate::harness::Cluster;

static DOCUMENT: &str = include_str!("../../../../docs/metrics.md");
static UPSTREAM: &str = include_str!("upstream_metrics.txt");

/// A row of the page.
#[derive(Debug)]
struct Row {
    name: String,
    stability: String,
    kind: String,
    labels: BTreeSet<String>,
    /// The test that shows it, or why it is not told.
    last: String,
}

fn words(text: &str, separator: char) -> BTreeSet<String> {
    text.split(separator).map(str::trim).filter(|w| !w.is_empty()).map(str::to_owned).collect()
}

/// What is told, and what is not.
fn document() -> (Vec<Row>, Vec<Row>) {
    let (told, not_told) = DOCUMENT.split_once("## Not told").expect("two parts");
    let read = |part: &str| {
        let rows = part.lines().filter(|line| line.starts_with("| `"));
        let row = |line: &str| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [name, stability, kind, labels, last] = cells[..] else { panic!("{line}") };
            Row {
                name: name.trim_matches('`').to_owned(),
                stability: stability.to_owned(),
                kind: kind.to_owned(),
                labels: words(labels, ' '),
                last: last.trim_matches('`').to_owned(),
            }
        };
        rows.map(row).collect::<Vec<Row>>()
    };
    (read(told), read(not_told))
}

#[test]
fn the_page_has_upstreams_list_and_names_tests_that_are_there() {
    let (told, not_told) = document();
    let mut listed = BTreeMap::new();
    for row in told.iter().chain(&not_told) {
        let about = (row.stability.clone(), row.kind.clone(), row.labels.clone());
        assert!(listed.insert(row.name.clone(), about).is_none(), "{} is listed twice", row.name);
    }
    let upstream: BTreeMap<String, _> = UPSTREAM
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let mut parts = line.split(' ');
            let mut next = || parts.next().unwrap_or("").to_owned();
            let (name, stability, kind, labels) = (next(), next(), next(), next());
            (name, (stability, kind, words(&labels, ',')))
        })
        .collect();
    assert_eq!(listed, upstream);
    assert!(not_told.iter().all(|row| row.last.len() > 20), "each has a reason");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for row in told.iter().filter(|row| row.last != "scrape") {
        let (file, test) = row.last.split_once("::").expect("a file and a test");
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_default();
        assert!(text.contains(&format!("fn {test}(")), "{} is not there", row.last);
        assert!(text.contains(&row.name), "{file} does not name {}", row.name);
    }
}

/// What makes figures move: workloads, an autoscaler, a policy, a webhook, a definition with a rule.
const OBJECTS: &str = r#"
apiVersion: batch/v1
kind: Job
metadata: {name: done}
spec:
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 0
      containers: [{name: c, image: BUSYBOX, command: ["true"]}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: fails}
spec:
  podFailurePolicy:
    rules: [{action: FailJob, onExitCodes: {operator: In, values: [7]}}]
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 0
      containers: [{name: c, image: BUSYBOX, command: [sh, -c, "exit 7"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: probed}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: BUSYBOX
    command: [sleep, "1000"]
    livenessProbe: {periodSeconds: 1, exec: {command: ["true"]}}
---
apiVersion: v1
kind: Pod
metadata: {name: nowhere}
spec:
  nodeSelector: {no: such}
  containers: [{name: c, image: BUSYBOX}]
---
apiVersion: v1
kind: Service
metadata: {name: near}
spec: {selector: {app: near}, trafficDistribution: PreferClose, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: scaled}
spec:
  replicas: 0
  selector: {matchLabels: {app: scaled}}
  template:
    metadata: {labels: {app: scaled}}
    spec: {containers: [{name: c, image: BUSYBOX}]}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: measured}
spec:
  replicas: 1
  selector: {matchLabels: {app: measured}}
  template:
    metadata: {labels: {app: measured}}
    spec: {nodeSelector: {no: such}, containers: [{name: c, image: BUSYBOX, resources: {requests: {cpu: 1m}}}]}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: measured}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: ReplicaSet, name: measured}
  maxReplicas: 2
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: counted}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]}
  validations: [{expression: "object.metadata.name != 'counted'"}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: counted}
spec: {policyName: counted, validationActions: [Warn]}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: away}
webhooks:
- name: away.example.com
  clientConfig: {url: "https://127.0.0.1:1/away"}
  rules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
  failurePolicy: Ignore
  timeoutSeconds: 1
  sideEffects: None
  admissionReviewVersions: [v1]
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ruled.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: ruled, singular: ruled, kind: Ruled}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        x-kubernetes-validations: [{rule: "self.metadata.name != ''"}]
"#;

/// The series of all scrapes: labels by the figure's name.
fn series(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (name, rest) = match line.split_once('{') {
            Some((name, rest)) => (name, rest.rsplit_once('}').map_or("", |(labels, _)| labels)),
            None => (line.split(' ').next().unwrap_or(""), ""),
        };
        let labels =
            rest.split("\",").filter_map(|pair| Some(pair.split_once("=\"")?.0.to_owned()));
        all.entry(name.to_owned()).or_default().extend(labels);
    }
    all
}

#[test]
fn what_the_page_lists_is_told_with_its_labels() {
    let cluster = Cluster::up("figs", &[]);
    cluster.import_busybox();
    cluster.eventually(&["get", "serviceaccount", "default"], |out| out.contains("default"));
    cluster.kubectl_stdin(&["apply", "-f", "-"], &OBJECTS.replace("BUSYBOX", busybox::NAME));
    cluster.kubectl(&["wait", "--for=condition=Established", "crd/ruled.example.com"]);
    let ruled = "{apiVersion: example.com/v1, kind: Ruled, metadata: {name: r}}";
    let make = ["create", "-f", "-"];
    cluster.kubectl_stdin(&make, ruled);
    cluster.kubectl(&["create", "configmap", "counted"]);
    cluster.kubectl(&["wait", "--for=condition=Complete", "job/done", "--timeout=60s"]);
    cluster.kubectl(&["wait", "--for=condition=Failed", "job/fails", "--timeout=60s"]);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/probed", "--timeout=60s"]);
    cluster.kubectl(&["get", "componentstatuses"]);
    let raw = |path: &str| cluster.kubectl(&["get", "--raw", path]);
    raw("/readyz");
    raw(
        "/api/v1/namespaces?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1",
    );
    let node = cluster.kubectl(&["get", "node", "-o", "jsonpath={.items[0].metadata.name}"]);
    let places = ["/metrics", "/metrics/slis"].map(str::to_owned).into_iter().chain(
        ["metrics", "metrics/resource", "metrics/probes"]
            .map(|path| format!("/api/v1/nodes/{node}/proxy/{path}")),
    );
    let places: Vec<String> = places.collect();
    let scrape = || places.iter().map(|path| raw(path)).collect::<Vec<_>>().join("\n");
    let (told, _) = document();
    let wanted: Vec<&Row> = told.iter().filter(|row| row.last == "scrape").collect();
    let missing = |found: &BTreeMap<String, BTreeSet<String>>| -> Vec<String> {
        let is_there = |row: &&&Row| match row.kind.as_str() {
            "histogram" => found.contains_key(&format!("{}_count", row.name)),
            _ => found.contains_key(&row.name),
        };
        wanted.iter().filter(|row| !is_there(row)).map(|row| row.name.clone()).collect()
    };
    // Controllers, the probe and the autoscaler take their time.
    let patience = std::time::Instant::now() + crate::harness::PATIENCE;
    let found = loop {
        let found = series(&scrape());
        let missing = missing(&found);
        if missing.is_empty() {
            break found;
        }
        assert!(std::time::Instant::now() < patience, "never told: {missing:?}");
        std::thread::sleep(crate::harness::LOOK);
    };
    for row in wanted {
        let name = match row.kind.as_str() {
            "histogram" => format!("{}_count", row.name),
            _ => row.name.clone(),
        };
        assert_eq!(found[&name], row.labels, "the labels of {}", row.name);
    }
}
