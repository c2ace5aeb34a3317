//! Golden cases of DaemonSets: placement, surplus and failed pods, rolling updates, and the status.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::placement::{Placement, Placer, node_of};
use super::plan::{Plan, State, plan, status};
use super::template;
use crate::meta::name;

fn set(more: Value) -> DaemonSet {
    let mut spec = json!({"selector": {"matchLabels": {"d": "d"}},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
        "template": {"metadata": {"labels": {"d": "d"}}, "spec": {"containers": []}}});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    serde_json::from_value(json!({"metadata": {"name": "d", "namespace": "n", "uid": "u",
        "generation": 2}, "spec": spec, "status": {"currentNumberScheduled": 0,
        "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0,
        "observedGeneration": 1}}))
    .unwrap()
}

fn node(own: &str, more: Value) -> Arc<Node> {
    let value = json!({"metadata": {"name": own, "labels": more["labels"]},
        "spec": {"taints": more["taints"]}});
    Arc::new(serde_json::from_value(value).unwrap())
}

fn nodes(count: usize) -> Vec<Arc<Node>> {
    (1..=count).map(|n| node(&format!("n{n}"), json!({}))).collect()
}

/// A pod on a node: `new` or `old` template; `Ready`, or a phase.
fn pod(own: &str, on: &str, hash: &str, state: &str) -> Arc<Pod> {
    let (phase, ready) = match state {
        "Ready" => ("Running", "True"),
        phase => (phase, "False"),
    };
    let value = json!({"metadata": {"name": own, "uid": own, "namespace": "n",
        "labels": {"d": "d", "controller-revision-hash": hash},
        "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"containers": [], "nodeName": on}, "status": {"phase": phase,
            "conditions": [{"type": "Ready", "status": ready,
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    Arc::new(serde_json::from_value(value).unwrap())
}

fn now() -> Time {
    Time("2026-01-01T00:01:00Z".parse().unwrap())
}

fn run(set: &DaemonSet, nodes: &[Arc<Node>], pods: &[Arc<Pod>]) -> Plan {
    let placer = &Placer::new(set);
    plan(&State { set, placer, nodes, pods, hash: "new", now: &now(), backoff: &|_| None })
}

fn deleted(plan: &Plan) -> Vec<&str> {
    plan.delete.iter().map(|p| name(&p.metadata)).collect()
}

#[test]
fn each_fitting_node_gets_a_pod() {
    let set = set(json!({"template": {"metadata": {"labels": {"d": "d"}},
        "spec": {"containers": [], "nodeSelector": {"disk": "ssd"}}}}));
    let all = [node("a", json!({"labels": {"disk": "ssd"}})), node("b", json!({}))];
    let plan = run(&set, &all, &[pod("stray", "b", "new", "Ready")]);
    assert_eq!((plan.create.clone(), deleted(&plan)), (vec!["a".to_owned()], vec!["stray"]));
}

#[test]
fn taints_keep_pods_away_or_evict_them() {
    let plain = set(json!({}));
    let tainted = |key: &str, effect: &str| {
        let taint = node("a", json!({"taints": [{"key": key, "effect": effect}]}));
        Placer::new(&plain).place(&taint)
    };
    assert_eq!(tainted("x", "NoSchedule"), Placement::Continue);
    assert_eq!(tainted("x", "NoExecute"), Placement::Never);
    assert_eq!(tainted("x", "PreferNoSchedule"), Placement::Run);
    for (key, effect) in [
        ("node.kubernetes.io/not-ready", "NoExecute"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
        ("node.kubernetes.io/unschedulable", "NoSchedule"),
        ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ] {
        assert_eq!(tainted(key, effect), Placement::Run, "{key}");
    }
    // Only daemons on the host's network live without a pod network.
    let network = "node.kubernetes.io/network-unavailable";
    assert_eq!(tainted(network, "NoSchedule"), Placement::Continue);
}

#[test]
fn pods_name_their_node_and_their_template() {
    let pod = template::pod(&set(json!({})), "n1", "hash");
    assert_eq!(node_of(&pod), Some("n1"));
    assert_eq!(pod.metadata.labels.as_ref().unwrap()["controller-revision-hash"], "hash");
    assert_eq!(pod.metadata.generate_name.as_deref(), Some("d-"));
    assert_eq!(pod.spec.unwrap().tolerations.unwrap().len(), 6);
}

#[test]
fn ended_pods_are_replaced_with_back_off() {
    let set = set(json!({}));
    let nodes = nodes(2);
    let pods = [pod("bad", "n1", "new", "Failed"), pod("done", "n2", "new", "Succeeded")];
    let plan = run(&set, &nodes, &pods);
    assert_eq!(deleted(&plan), ["bad", "done"]);
    let told: Vec<&str> = plan.events.iter().map(|(.., message)| message.as_str()).collect();
    assert_eq!(
        told,
        [
            "Found failed daemon pod n/bad on node n1, will try to kill it",
            "Found succeeded daemon pod n/done on node n2, will try to delete it"
        ]
    );
    let wait = Duration::from_secs(7);
    let waiting = super::plan::plan(&State {
        set: &set,
        placer: &Placer::new(&set),
        nodes: &nodes,
        pods: &pods[..1],
        hash: "new",
        now: &now(),
        backoff: &|_| Some(wait),
    });
    assert_eq!((deleted(&waiting), waiting.recheck), (vec![], Some(wait)));
    assert_eq!(waiting.create, ["n2"]);
}

#[test]
fn doubles_and_pods_for_nodes_that_are_gone_go() {
    let set = set(json!({}));
    let mut orphan = template::pod(&set, "gone", "new");
    orphan.metadata.name = Some("waiting".into());
    let pods =
        [pod("first", "n1", "new", "Ready"), pod("second", "n1", "new", "Ready"), Arc::new(orphan)];
    assert_eq!(deleted(&run(&set, &nodes(1), &pods)), ["second", "waiting"]);
}

#[test]
fn a_rolling_update_replaces_as_many_as_may_be_missing() {
    let three = nodes(3);
    let pods = [
        pod("a", "n1", "old", "Ready"),
        pod("b", "n2", "old", "Ready"),
        pod("c", "n3", "old", "Ready"),
    ];
    assert_eq!(deleted(&run(&set(json!({})), &three, &pods)), ["a"]);
    let two = set(json!({"updateStrategy": {"type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": "50%"}}}));
    assert_eq!(deleted(&run(&two, &three, &pods)), ["a", "b"]);
    // A new pod that does not work counts; an old one that does not work goes anyway.
    let pods = [
        pod("a", "n1", "new", "Running"),
        pod("b", "n2", "old", "Running"),
        pod("c", "n3", "old", "Ready"),
    ];
    assert_eq!(deleted(&run(&set(json!({})), &three, &pods)), ["b"]);
    let on_delete = set(json!({"updateStrategy": {"type": "OnDelete"}}));
    assert_eq!(run(&on_delete, &three, &pods), Plan::default());
}

#[test]
fn with_surge_the_new_pod_comes_first() {
    let surging = set(json!({"updateStrategy": {"type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}));
    let two = nodes(2);
    let old = [pod("a", "n1", "old", "Ready"), pod("b", "n2", "old", "Ready")];
    let plan = run(&surging, &two, &old);
    assert_eq!((plan.create.clone(), deleted(&plan)), (vec!["n1".to_owned()], vec![]));
    let starting = [old[0].clone(), old[1].clone(), pod("c", "n1", "new", "Running")];
    assert_eq!(run(&surging, &two, &starting), Plan::default());
    let works = [old[0].clone(), old[1].clone(), pod("c", "n1", "new", "Ready")];
    assert_eq!(deleted(&run(&surging, &two, &works)), ["a"]);
    // An old pod that does not work is no reason to wait.
    let broken = [pod("a", "n1", "old", "Running"), old[1].clone()];
    let plan = run(&surging, &two, &broken);
    assert_eq!(plan.create, ["n1", "n2"]);
}

#[test]
fn the_status_counts_nodes() {
    let set = set(json!({"minReadySeconds": 90}));
    let nodes = [
        node("n1", json!({})),
        node("n2", json!({})),
        node("n3", json!({})),
        node("n4", json!({"taints": [{"key": "x", "effect": "NoSchedule"}]})),
    ];
    let pods = [
        pod("a", "n1", "new", "Ready"),
        pod("b", "n2", "old", "Running"),
        pod("d", "n4", "old", "Ready"),
    ];
    let state = State {
        set: &set,
        placer: &Placer::new(&set),
        nodes: &nodes,
        pods: &pods,
        hash: "new",
        now: &now(),
        backoff: &|_| None,
    };
    let (counted, recheck) = status(&state, true);
    assert_eq!(
        serde_json::to_value(&counted).unwrap(),
        json!({"desiredNumberScheduled": 3, "currentNumberScheduled": 2, "numberMisscheduled": 1,
            "numberReady": 1, "updatedNumberScheduled": 1, "numberUnavailable": 3,
            "observedGeneration": 2})
    );
    assert_eq!(recheck, Some(Duration::from_secs(30)));
    assert_eq!(status(&state, false).0.observed_generation, Some(1));
}
