//! The slices of a service.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::plan::{Plan, plan};

fn service(spec: Value) -> Service {
    serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "n", "uid": "u",
        "labels": {"x": "y"}}, "spec": spec}))
    .unwrap()
}

fn pod(n: usize, ready: &str) -> Arc<Pod> {
    Arc::new(
        serde_json::from_value(json!({"metadata": {"name": format!("p{n}"), "namespace": "n"},
            "spec": {"nodeName": "node", "hostname": "h", "subdomain": "s", "containers": [
                {"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}]},
            "status": {"phase": "Running", "podIP": format!("10.0.{}.{}", n / 250, n % 250),
                "conditions": [{"type": "Ready", "status": ready}]}}))
        .unwrap(),
    )
}

fn run(service: &Service, pods: &[Arc<Pod>], present: &[Arc<EndpointSlice>]) -> Plan {
    plan(service, pods, &|_| Some("z".into()), present)
}

fn named(plan: Plan) -> Vec<Arc<EndpointSlice>> {
    let name = |(i, mut s): (usize, EndpointSlice)| {
        s.metadata.name = Some(format!("s-{i}"));
        Arc::new(s)
    };
    plan.create.into_iter().enumerate().map(name).collect()
}

fn web() -> Service {
    service(json!({"ports": [{"name": "http", "port": 80, "targetPort": "web"}]}))
}

#[test]
fn an_endpoint_says_what_the_pod_is() {
    let made = run(&web(), &[pod(1, "True")], &[]).create;
    let slice = serde_json::to_value(&made[0]).unwrap();
    assert_eq!(
        slice["metadata"]["labels"],
        json!({"x": "y", "kubernetes.io/service-name": "s",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"})
    );
    assert_eq!(slice["ports"], json!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
    assert_eq!(
        slice["endpoints"],
        json!([{"addresses": ["10.0.0.1"], "hostname": "h",
        "conditions": {"ready": true, "serving": true, "terminating": false},
        "nodeName": "node", "zone": "z",
        "targetRef": {"kind": "Pod", "name": "p1", "namespace": "n"}}])
    );
}

#[test]
fn what_a_plan_leaves_is_counted() {
    let pods: Vec<_> = (0..150).map(|n| pod(n, "True")).collect();
    let plan = run(&web(), &pods, &[]);
    let (counts, changes) = plan.counts(&[]);
    assert_eq!((counts.endpoints, counts.slices, counts.desired), (150, 2, 2));
    assert_eq!(changes, (150, 0));
    let slices = named(plan);
    let fewer: Vec<_> = (1..151).map(|n| pod(n, "True")).collect();
    let plan = run(&web(), &fewer, &slices);
    let (counts, changes) = plan.counts(&slices);
    assert_eq!((counts.endpoints, counts.slices, changes), (150, 2, (1, 1)));
    let (counts, changes) = run(&web(), &[], &slices).counts(&slices);
    assert_eq!((counts.endpoints, counts.slices, counts.desired, changes), (0, 1, 1, (0, 150)));
}

#[test]
fn slices_hold_a_hundred_and_are_left_alone() {
    let pods: Vec<_> = (0..150).map(|n| pod(n, "True")).collect();
    let slices = named(run(&web(), &pods, &[]));
    let sizes: Vec<usize> = slices.iter().map(|s| s.endpoints.as_ref().unwrap().len()).collect();
    assert_eq!(sizes, [100, 50]);
    assert_eq!(run(&web(), &pods, &slices), Plan::default());
    // One more pod touches one slice; all gone leaves one empty.
    let more: Vec<_> = (0..151).map(|n| pod(n, "True")).collect();
    let plan = run(&web(), &more, &slices);
    assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 1, 0));
    let plan = run(&web(), &[], &slices);
    assert_eq!((plan.create.len(), plan.delete.len()), (1, 2));
    let empty = named(plan);
    assert_eq!(run(&web(), &[], &empty), Plan::default());
}

#[test]
fn unready_pods_are_published_on_request() {
    let publish = service(json!({"publishNotReadyAddresses": true, "clusterIP": "None"}));
    let made = run(&publish, &[pod(1, "False")], &[]).create;
    let conditions = made[0].endpoints.as_ref().unwrap()[0].conditions.as_ref().unwrap();
    assert_eq!((conditions.ready, conditions.serving), (Some(true), Some(false)));
    assert!(made[0].metadata.labels.as_ref().unwrap().contains_key(super::plan::HEADLESS));
}

#[test]
fn each_family_has_its_slices() {
    let dual = service(json!({"ipFamilies": ["IPv4", "IPv6"], "ports": [{"port": 80}]}));
    let made = run(&dual, &[pod(1, "True")], &[]).create;
    let of: Vec<_> = made
        .iter()
        .map(|s| (s.address_type.as_str(), s.endpoints.as_ref().unwrap().len()))
        .collect();
    assert_eq!(of, [("IPv4", 1), ("IPv6", 0)]);
}
