//! Claims of pods: prepared before the sandbox, unprepared with the last pod, by a driver double.

use std::sync::Arc;

use client::Tasks;
use serde_json::{Value, json};

use crate::dra_driver::{Driver, Fault, NAME};
use crate::lifecycle::{Node, POD, one};
use crate::real;

const CLAIMS: &str = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";

fn root(node: &Node) -> std::path::PathBuf {
    node.dir.path().join("kubelet")
}

/// A claim that is reserved for pods of these uids.
pub(crate) fn claim(api: &crate::api::FakeApi, name: &str, pods: &[&str]) {
    let reserved: Vec<_> =
        pods.iter().map(|uid| json!({"resource": "pods", "name": uid, "uid": uid})).collect();
    let results = json!([{"request": "a", "driver": NAME, "pool": "p", "device": "d0"}]);
    api.put(
        &format!("{CLAIMS}/{name}"),
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")},
            "spec": {"devices": {}},
            "status": {"reservedFor": reserved, "allocation": {"devices": {"results": results}}}}),
    );
}

/// A pod with the claim `name`, of which its container uses one request or all.
fn asks(name: &str, request: Option<&str>) -> Value {
    let mut own = json!({"name": "gpu"});
    if let Some(request) = request {
        own["request"] = json!(request);
    }
    let mut spec = one(json!({"resources": {"claims": [own]}}));
    spec["resourceClaims"] = json!([{"name": "gpu", "resourceClaimName": name}]);
    spec
}

fn running(status: &Value) -> bool {
    status["phase"] == "Running"
}

async fn is_running(node: &Node, name: &str) {
    let path = format!("/api/v1/namespaces/default/pods/{name}");
    node.api.until(|api| api.get(&path).filter(|p| running(&p["status"]))).await;
}

fn cdi(node: &Node) -> Vec<String> {
    let table = node.runtime.table.lock().unwrap();
    let (_, config, _) = table.containers.values().next_back().unwrap();
    config.cdi_devices.iter().map(|device| device.name.clone()).collect()
}

/// Waits for an event that says so.
async fn told(node: &Node, why: &str) {
    let text = format!("Failed to prepare dynamic resources: prepare dynamic resources: {why}");
    let prefix = "/api/v1/namespaces/default/events/";
    let is = |e: &Value| {
        e["reason"] == "FailedPrepareDynamicResources"
            && e["message"].as_str().is_some_and(|m| m.starts_with(&text))
    };
    node.api.until(|api| api.list(prefix).into_iter().find(is)).await;
}

fn remove(node: &Node, name: &str) {
    let path = format!("/api/v1/namespaces/default/pods/{name}");
    let done = node.api.update(&path, |pod| {
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(0);
    });
    done.unwrap();
}

#[tokio::test]
async fn a_shared_claim_is_prepared_once_and_unprepared_with_its_last_pod() {
    let node = Node::start();
    let driver = Driver::start(&root(&node), "v1");
    claim(&node.api, "c", &["u1", "two"]);
    node.create(asks("c", None));
    node.status(running).await;
    assert_eq!(cdi(&node), [format!("{NAME}/gpu=c-0"), format!("{NAME}/gpu=c-1")]);
    node.put("two", asks("c", Some("b")));
    is_running(&node, "two").await;
    assert_eq!(cdi(&node), [format!("{NAME}/gpu=c-1")]);
    assert_eq!(driver.calls(), ["prepare c"]);
    remove(&node, "web");
    node.api.until(|api| api.get(POD).is_none().then_some(())).await;
    assert_eq!(driver.calls(), ["prepare c"], "another pod uses it");
    remove(&node, "two");
    let path = "/api/v1/namespaces/default/pods/two";
    node.api.until(|api| api.get(path).is_none().then_some(())).await;
    assert_eq!(driver.calls(), ["prepare c", "unprepare c"]);
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn claims_that_cannot_be_prepared_hold_their_pod() {
    let node = Node::start();
    node.create(asks("c", None));
    told(&node, "fetch ResourceClaim c: ").await;
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn refusals_have_upstreams_words() {
    let node = Node::start();
    claim(&node.api, "c", &["u1"]);
    node.create(asks("c", None));
    told(&node, "DRA driver gpu.example.com is not registered").await;
    claim(&node.api, "mine", &[]);
    node.put("p1", asks("mine", None));
    told(&node, "pod p1 (p1) is not allowed to use ResourceClaim mine (uid-mine)").await;
    claim(&node.api, "raw", &["p2"]);
    let path = format!("{CLAIMS}/raw");
    let mut raw = node.api.get(&path).unwrap();
    raw["status"]["allocation"] = Value::Null;
    node.api.put(&path, raw);
    node.put("p2", asks("raw", None));
    told(&node, "ResourceClaim raw: not allocated").await;
    let mut spec = asks("c", None);
    spec["resourceClaims"] = json!([{"name": "gpu", "resourceClaimTemplateName": "t"}]);
    node.put("p3", spec);
    told(&node, "pod \"default/p3\": ResourceClaim not created yet").await;
    // The driver comes: the first pod runs.
    let driver = Driver::start(&root(&node), "v1beta1");
    node.status(running).await;
    for (name, fault, why) in [
        ("f1", Fault::Refused, "NodePrepareResources failed for ResourceClaim c-f1: no power"),
        ("f2", Fault::Skipped, "NodePrepareResources skipped 1 ResourceClaims"),
        ("f3", Fault::Unknown, "NodePrepareResources returned result for unknown claim UID other"),
    ] {
        *driver.fault.lock().unwrap() = Some(fault);
        let own = format!("c-{name}");
        claim(&node.api, &own, &[name]);
        node.put(name, asks(&own, None));
        told(&node, why).await;
        // It is tried again.
        is_running(&node, name).await;
    }
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn claims_of_pods_that_went_while_the_agent_was_away_are_unprepared() {
    let node = Node::start();
    let driver = Driver::start(&root(&node), "v1");
    claim(&node.api, "c", &["u1"]);
    claim(&node.api, "d", &["two"]);
    node.create(asks("c", None));
    node.put("two", asks("d", None));
    node.status(running).await;
    is_running(&node, "two").await;
    node.tasks.shutdown().await;
    node.api.remove(POD);
    let tasks = Tasks::new();
    node.run(&tasks, node.config());
    driver.until("unprepare c").await;
    // The other one starts anew with what it had; its driver is not asked.
    node.runtime.exit("c", 1);
    let path = "/api/v1/namespaces/default/pods/two";
    let again = |p: &Value| p["status"]["containerStatuses"][0]["restartCount"] == 1;
    node.api.until(|api| api.get(path).filter(again)).await;
    is_running(&node, "two").await;
    assert_eq!(cdi(&node)[0], format!("{NAME}/gpu=d-0"));
    assert_eq!(driver.calls().iter().filter(|c| c.starts_with("prepare")).count(), 2);
    // A driver that does not let go holds the pod.
    *driver.fault.lock().unwrap() = Some(Fault::Refused);
    remove(&node, "two");
    node.api.until(|api| api.get(path).is_none().then_some(())).await;
    assert_eq!(driver.calls().iter().filter(|c| *c == "unprepare d").count(), 2);
    driver.stop().await;
    tasks.shutdown().await;
}

#[tokio::test]
async fn the_health_of_devices_is_in_the_pods_status() {
    let node = Node::start();
    let driver = Driver::start(&root(&node), "v1");
    claim(&node.api, "c", &["u1"]);
    let mut spec = asks("c", Some("a"));
    spec["resourceClaims"] = json!([{"name": "gpu", "resourceClaimTemplateName": "t"}]);
    node.create(spec);
    node.change(|pod| {
        pod["status"] =
            json!({"resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "c"}]});
    });
    let path = format!("{CLAIMS}/c");
    let mut owned = node.api.get(&path).unwrap();
    owned["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "u1", "controller": true}]);
    node.api.put(&path, owned);
    let of = |s: &Value| s["containerStatuses"][0]["allocatedResourcesStatus"].clone();
    let shown = |health: &str| {
        let id = format!("{NAME}/gpu=c-0");
        json!([{"name": "claim:gpu/a", "resources": [{"resourceID": id, "health": health}]}])
    };
    node.status(|s| of(s) == shown("Healthy")).await;
    driver.health.send_replace(2);
    let mut sick = shown("Unhealthy");
    sick[0]["resources"][0]["message"] = json!("hot");
    node.status(|s| of(s) == sick).await;
    driver.stop().await;
    node.status(|s| of(s) == shown("Unknown")).await;
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn slices_of_drivers_that_were_there_before_go() {
    let node = Node::start();
    let slices = "/apis/resource.k8s.io/v1/resourceslices";
    let slice = |name: &str, on: &str| {
        node.api.put(
            &format!("{slices}/{name}"),
            json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice",
                "metadata": {"name": name}, "spec": {"nodeName": on, "driver": NAME}}),
        );
    };
    node.tasks.shutdown().await;
    slice("own", "n1");
    slice("other", "n2");
    let tasks = Tasks::new();
    node.run(&tasks, node.config());
    let own = format!("{slices}/own");
    node.api.until(|api| api.get(&own).is_none().then_some(())).await;
    assert!(node.api.get(&format!("{slices}/other")).is_some());
    tasks.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_container_has_what_the_cdi_file_says() {
    let node = real::Node::start().await;
    let host = node.dir.path().join("driver");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("version"), "7").unwrap();
    let cdi = json!({"cdiVersion": "0.6.0", "kind": format!("{NAME}/gpu"), "devices": [
        {"name": "c-0", "containerEdits": {
            "env": ["GPU=zero"],
            "deviceNodes": [{"path": "/dev/gpu0", "hostPath": "/dev/zero", "permissions": "rw", "fileMode": 0o644}],
            "mounts": [{"hostPath": host, "containerPath": "/gpu", "options": ["ro", "nosuid", "nodev", "bind"]}]}},
        {"name": "c-1", "containerEdits": {"env": ["MORE=1"]}}]});
    std::fs::write(node.cdi.join("gpu.json"), cdi.to_string()).unwrap();
    let driver: Arc<Driver> = Driver::start(&node.dir.path().join("kubelet"), "v1");
    claim(&node.api, "c", &["uid-web"]);
    let script = "echo $GPU$MORE; cat /gpu/version; echo; ls -l /dev/gpu0; rm /gpu/version || echo kept; cat /dev/gpu0 | true; while read a b c d e f; do case $e in /gpu) echo $f;; esac; done </proc/self/mountinfo; echo done; while true; do sleep 1000; done";
    let container =
        json!({"command": ["sh", "-c", script], "resources": {"claims": [{"name": "gpu"}]}});
    node.pod_with(
        "web",
        json!([container]),
        json!({"resourceClaims": [{"name": "gpu", "resourceClaimName": "c"}]}),
    );
    let seen = async {
        loop {
            let log = node.log("web", "c");
            if log.contains("done") {
                return log;
            }
            tokio::task::yield_now().await;
        }
    };
    let log = tokio::time::timeout(std::time::Duration::from_secs(20), seen).await;
    let log =
        log.unwrap_or_else(|_| panic!("{:?}", node.api.list("/api/v1/namespaces/default/events/")));
    for part in
        ["stdout F zero1", "stdout F 7", "crw-r--r--", "1,   5", "stdout F kept", "nosuid,nodev"]
    {
        assert!(log.contains(part), "no {part:?} in {log}");
    }
    node.delete("web").await;
    driver.until("unprepare c").await;
    node.tasks.shutdown().await;
}
