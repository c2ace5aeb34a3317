//! The plan, the messages and the queue on small clusters.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::filter::Filter;
use crate::plan::choose;
use crate::pod::PodInfo;
use crate::queue::{Helps, Queue};
use crate::report::refusal_patch;

fn node(name: &str, cpu: &str, extra: Value) -> Arc<Node> {
    let mut value = json!({"metadata": {"name": name, "labels": {
        "kubernetes.io/hostname": name}}, "spec": {},
        "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}}});
    api_merge(&mut value, &extra);
    Arc::new(serde_json::from_value(value).unwrap())
}

fn pod(name: &str, cpu: &str, extra: Value) -> Arc<PodInfo> {
    let mut value = json!({"metadata": {"name": name, "namespace": "default", "uid": name,
        "labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i",
        "resources": {"requests": {"cpu": cpu}}}]}});
    api_merge(&mut value, &extra);
    let pod: Pod = serde_json::from_value(value).unwrap();
    Arc::new(PodInfo::new(Arc::new(pod)))
}

fn api_merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (k, v) in from {
                api_merge(into.entry(k.clone()).or_insert(Value::Null), v);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

fn cluster(nodes: &[Arc<Node>]) -> Cluster {
    let mut cluster = Cluster::default();
    nodes.iter().for_each(|n| cluster.set_node(n.clone()));
    cluster
}

#[test]
fn an_idle_node_is_preferred() {
    let mut c = cluster(&[node("a", "4", json!({})), node("b", "4", json!({}))]);
    c.place("a", pod("p1", "2", json!({})));
    assert_eq!(choose(&mut c, &pod("p2", "1", json!({}))).as_deref(), Ok("b"));
}

#[test]
fn the_refusal_counts_each_reason() {
    let taint = json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    let cordoned = json!({"spec": {"unschedulable": true}});
    let nodes = [node("a", "1", json!({})), node("b", "1", taint), node("c", "1", cordoned)];
    let mut c = cluster(&nodes);
    let unfit = choose(&mut c, &pod("p", "2", json!({}))).unwrap_err();
    assert_eq!(
        unfit.message,
        "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s), \
         1 node(s) were unschedulable. preemption: 0/3 nodes are available: \
         3 Preemption is not helpful for scheduling."
    );
    let filters = [Filter::Unschedulable, Filter::Taints, Filter::Resources];
    assert_eq!(unfit.filters, filters.into());
}

#[test]
fn no_nodes_has_its_own_words() {
    let unfit = choose(&mut Cluster::default(), &pod("p", "1", json!({}))).unwrap_err();
    assert_eq!(unfit.message, "no nodes available to schedule pods");
}

#[test]
fn node_selector_and_affinity() {
    let label = json!({"metadata": {"labels": {"disk": "ssd"}}});
    let mut c = cluster(&[node("a", "4", json!({})), node("b", "4", label)]);
    let selects = json!({"spec": {"nodeSelector": {"disk": "ssd"}}});
    assert_eq!(choose(&mut c, &pod("p", "1", selects)).as_deref(), Ok("b"));
    let avoids = json!({"spec": {"affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "disk", "operator": "NotIn", "values": ["ssd"]}]}]}}}}});
    assert_eq!(choose(&mut c, &pod("q", "1", avoids)).as_deref(), Ok("a"));
}

fn anti() -> Value {
    json!({"spec": {"affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [{
            "labelSelector": {"matchLabels": {"app": "a"}},
            "topologyKey": "kubernetes.io/hostname"}]}}}})
}

#[test]
fn anti_affinity_works_both_ways() {
    let mut c = cluster(&[node("a", "4", json!({})), node("b", "4", json!({}))]);
    c.place("a", pod("p1", "1", anti()));
    assert_eq!(choose(&mut c, &pod("p2", "1", anti())).as_deref(), Ok("b"));
    // A pod without terms is refused by the one that is there.
    assert_eq!(choose(&mut c, &pod("p3", "1", json!({}))).as_deref(), Ok("b"));
    c.place("b", pod("p2", "1", anti()));
    let unfit = choose(&mut c, &pod("p4", "1", json!({}))).unwrap_err();
    assert!(unfit.message.starts_with(
        "0/2 nodes are available: 2 node(s) didn't satisfy existing pods anti-affinity rules."
    ));
}

#[test]
fn affinity_lets_the_first_of_its_kind_in() {
    let mut c = cluster(&[node("a", "4", json!({})), node("b", "4", json!({}))]);
    let wants = json!({"spec": {"affinity": {"podAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [{
            "labelSelector": {"matchLabels": {"app": "a"}},
            "topologyKey": "kubernetes.io/hostname"}]}}}});
    let first = pod("p1", "1", wants.clone());
    let there = choose(&mut c, &first).unwrap();
    c.place(&there, first);
    assert_eq!(choose(&mut c, &pod("p2", "1", wants)).as_deref(), Ok(there.as_str()));
}

#[test]
fn spread_keeps_the_skew() {
    let mut c = cluster(&[node("a", "8", json!({})), node("b", "1", json!({}))]);
    let spread = json!({"spec": {"topologySpreadConstraints": [{"maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "a"}}}]}});
    c.place("a", pod("p1", "100m", spread.clone()));
    assert_eq!(choose(&mut c, &pod("p2", "100m", spread)).as_deref(), Ok("b"));
}

#[test]
fn host_ports_clash() {
    let mut c = cluster(&[node("a", "8", json!({}))]);
    let port = json!({"spec": {"containers": [{"name": "c",
        "ports": [{"containerPort": 80, "hostPort": 80}]}]}});
    c.place("a", pod("p1", "1", port.clone()));
    let unfit = choose(&mut c, &pod("p2", "1", port)).unwrap_err();
    assert!(unfit.message.contains("1 node(s) didn't have free ports for the requested pod ports"));
}

#[test]
fn the_least_important_are_preempted() {
    let mut c = cluster(&[node("a", "2", json!({})), node("b", "2", json!({}))]);
    c.place("a", pod("low", "2", json!({"spec": {"priority": 1}})));
    c.place("b", pod("mid", "2", json!({"spec": {"priority": 5}})));
    let high = pod("high", "1", json!({"spec": {"priority": 10}}));
    let victims = choose(&mut c, &high).unwrap_err().victims.unwrap();
    assert_eq!((victims.node.as_str(), victims.pods[0].name()), ("a", "low"));
    // Room that is kept for it is not given to a lesser pod.
    c.nominate("a", high);
    c.remove_pod("low");
    let lesser = pod("lesser", "2", json!({"spec": {"priority": 3}}));
    assert!(choose(&mut c, &lesser).is_err());
}

#[tokio::test(start_paused = true)]
async fn parked_pods_wake_for_what_helps_them() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    queue.put(pod("p", "1", json!({})), now);
    let high = pod("h", "1", json!({"spec": {"priority": 9}}));
    queue.put(high, now);
    assert_eq!(queue.pop(now).unwrap().name(), "h");
    queue.remove("h");
    assert_eq!(queue.pop(now).unwrap().name(), "p");
    queue.park("p", [Filter::Resources].into(), now);
    queue.happened(&Helps::Only(&[Filter::Taints]), now);
    assert_eq!(queue.pop(now).unwrap_err(), None);
    queue.happened(&Helps::Only(&[Filter::Resources]), now);
    let due = now + Duration::from_secs(1);
    assert_eq!(queue.pop(now).unwrap_err(), Some(due));
    assert_eq!(queue.pop(due).unwrap().name(), "p");
}

#[test]
fn a_refusal_is_written_once() {
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "status": {
        "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "m"}]}}))
    .unwrap();
    assert_eq!(refusal_patch(&pod, "m", None), None);
    assert!(refusal_patch(&pod, "other", None).is_some());
    let nominated = refusal_patch(&pod, "m", Some("a")).unwrap();
    assert_eq!(nominated["status"]["nominatedNodeName"], "a");
}
