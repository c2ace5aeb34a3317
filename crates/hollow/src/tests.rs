//! What becomes of pods on hollow nodes.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use crate::Config;
use crate::plan::{self, Step, step};

fn now() -> Timestamp {
    "2026-01-01T00:01:00Z".parse().unwrap()
}

fn pod(meta: Value, status: Value) -> Pod {
    let mut value = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {
        "nodeName": "hollow-0", "containers": [{"name": "c", "image": "i"}],
        "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]},
        "status": status});
    for (key, content) in meta.as_object().unwrap() {
        value["metadata"][key] = content.clone();
    }
    serde_json::from_value(value).unwrap()
}

#[test]
fn a_pod_runs_until_it_is_asked_to_end() {
    let running = json!({"phase": "Running", "startTime": "2026-01-01T00:00:00Z"});
    assert_eq!(step(&pod(json!({}), json!({"phase": "Pending"})), now()), Step::Run);
    assert_eq!(step(&pod(json!({}), running.clone()), now()), Step::Nothing);
    let ends = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
    assert_eq!(step(&pod(ends, running.clone()), now()), Step::Remove);
    let end = |phase: &str, after: &str| {
        json!({"annotations": {"hollow.trireme.io/end": phase,
            "hollow.trireme.io/after-seconds": after}})
    };
    let of = |phase: &str, after: &str| step(&pod(end(phase, after), running.clone()), now());
    assert_eq!(of("Failed", "60"), Step::End("Failed"));
    assert_eq!(of("Succeeded", "70"), Step::Wait(Duration::from_secs(10)));
    assert_eq!(of("Exploded", "0"), Step::Nothing);
    let over = pod(end("Failed", "0"), json!({"phase": "Succeeded"}));
    assert_eq!(step(&over, now()), Step::Nothing);
}

#[test]
fn a_pod_that_runs_is_ready() {
    let waiting = pod(json!({}), json!({}));
    let (address, host) = (plan::pod_address(7), plan::node_address(0));
    let status = plan::running(&waiting, address, host, now());
    assert_eq!(status["podIP"], "10.128.0.7");
    assert_eq!(status["hostIP"], "10.0.0.1");
    let ready = &status["conditions"][3];
    assert_eq!((&ready["type"], &ready["status"]), (&json!("Ready"), &json!("True")));
    assert_eq!(status["containerStatuses"][0]["ready"], true);
    assert_eq!(status["initContainerStatuses"][0]["state"]["terminated"]["exitCode"], 0);
    assert!(status["initContainerStatuses"][1]["state"]["running"].is_object());
    // All of it is what the API takes.
    let mut whole = serde_json::to_value(&waiting).unwrap();
    whole["status"] = status;
    serde_json::from_value::<Pod>(whole).unwrap();
    let failed = plan::ended(&waiting, "Failed", now());
    assert_eq!(failed["containerStatuses"][0]["state"]["terminated"]["exitCode"], 1);
}

#[test]
fn nodes_are_known_by_their_names() {
    let config = Config { nodes: 3, ..Config::default() };
    assert_eq!(config.index("hollow-2"), Some(2));
    for other in ["hollow-3", "hollow-02", "hollow", "hollow-x", "other-1"] {
        assert_eq!(config.index(other), None, "{other}");
    }
    let node: Node = serde_json::from_value(plan::node(&config, 2)).unwrap();
    assert_eq!(node.metadata.name.as_deref(), Some("hollow-2"));
    assert_eq!(node.status.as_ref().unwrap().allocatable.as_ref().unwrap()["pods"].0, "110");
    assert!(!plan::is_silent(&node));
    let mut silent = node;
    silent.metadata.annotations =
        Some([("hollow.trireme.io/silent".to_owned(), "true".to_owned())].into());
    assert!(plan::is_silent(&silent));
}
