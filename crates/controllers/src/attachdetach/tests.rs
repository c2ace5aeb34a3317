//! What is attached, kept and detached.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, Pod};
use serde_json::{Value, json};

use super::apply::blocked;
use super::plan::{Attached, Plan, Situation, UNMOUNT_MAX, plan};
use super::volumes::{Volume, claims, is_ours, is_terminated};

fn node(extra: Value) -> Node {
    let mut value = json!({"metadata": {"name": "a", "annotations":
        {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    for (key, content) in extra.as_object().unwrap() {
        for (field, content) in content.as_object().unwrap() {
            value[key][field] = content.clone();
        }
    }
    serde_json::from_value(value).unwrap()
}

fn volume(modes: Value) -> Volume {
    let value = json!({"metadata": {"name": "pv"}, "spec": {"accessModes": modes,
        "csi": {"driver": "d", "volumeHandle": "h"}}});
    Volume::of(&serde_json::from_value::<PersistentVolume>(value).unwrap(), "a").unwrap()
}

fn attached(status: Value) -> Attached {
    let value = json!({"metadata": {"name": volume(json!([])).attachment}, "spec": {
        "attacher": "d", "nodeName": "a", "source": {"persistentVolumeName": "pv"}},
        "status": status});
    Attached {
        attachment: Arc::new(serde_json::from_value(value).unwrap()),
        unique: Some("kubernetes.io/csi/d^h".into()),
    }
}

fn of(node: Option<&Node>, wanted: &[Volume], existing: Vec<Attached>, unused: Duration) -> Plan {
    elsewhere(node, wanted, existing, unused, &[])
}

fn elsewhere(
    node: Option<&Node>,
    wanted: &[Volume],
    existing: Vec<Attached>,
    unused: Duration,
    others: &[&str],
) -> Plan {
    let wanted: BTreeMap<String, Volume> =
        wanted.iter().map(|v| (v.attachment.clone(), v.clone())).collect();
    plan(Situation {
        node,
        wanted,
        existing,
        unused_for: &|_| unused,
        elsewhere: &|_| others.iter().map(|other| (*other).to_owned()).collect(),
    })
}

const NOW: Duration = Duration::ZERO;

#[test]
fn names_are_those_that_csi_knows() {
    let volume = volume(json!(["ReadWriteOnce"]));
    // printf %s hda | sha256sum
    let digest = "c7e15073db8a31851603fca8ebbbef87d485d00357b279084c86b1900878603f";
    assert_eq!(volume.attachment, format!("csi-{digest}"));
    assert!(is_ours(&volume.attachment));
    assert_eq!(volume.unique, "kubernetes.io/csi/d^h");
    assert!(!volume.is_shared);
    assert!(!is_ours("csi-short") && !is_ours(&"x".repeat(68)));
}

#[test]
fn a_volume_is_attached_reported_and_told() {
    let own = [volume(json!(["ReadWriteOnce"]))];
    let fresh = of(Some(&node(json!({}))), &own, vec![], NOW);
    assert_eq!(fresh.attach.len(), 1);
    assert!(fresh.report.is_none());
    // It is there, and not attached yet.
    let waiting = of(Some(&node(json!({}))), &own, vec![attached(json!({"attached": false}))], NOW);
    assert!(waiting.attach.is_empty() && waiting.report.is_none() && waiting.succeeded.is_empty());
    let done = of(Some(&node(json!({}))), &own, vec![attached(json!({"attached": true}))], NOW);
    let report = done.report.unwrap();
    assert_eq!(report[0].name, "kubernetes.io/csi/d^h");
    assert_eq!(done.succeeded.len(), 1);
    // What the node was told is told once; entries of others stay.
    let told = json!({"status": {"volumesAttached": [{"name": "other", "devicePath": "/dev/x"},
        {"name": "kubernetes.io/csi/d^h", "devicePath": ""}]}});
    let again = of(Some(&node(told.clone())), &own, vec![attached(json!({"attached": true}))], NOW);
    assert!(again.report.is_none() && again.succeeded.is_empty());
    let gone = of(Some(&node(told)), &[], vec![attached(json!({"attached": true}))], NOW);
    let left: Vec<String> = gone.report.unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(left, ["other"]);
    assert_eq!(gone.detach.len(), 1);
    // The node is asked once more before the volume goes.
    assert_eq!(gone.detach[0].unless_mounted.as_deref(), Some("kubernetes.io/csi/d^h"));
}

#[test]
fn a_driver_that_fails_is_told() {
    let own = [volume(json!(["ReadWriteOnce"]))];
    let status = json!({"attached": false, "attachError": {"message": "no such disk"}});
    let failed = of(Some(&node(json!({}))), &own, vec![attached(status)], NOW).failed;
    assert_eq!(failed[0].1, "no such disk");
}

#[test]
fn what_is_mounted_stays_until_the_node_is_given_up() {
    let mounted = json!({"status": {"volumesInUse": ["kubernetes.io/csi/d^h"]}});
    let done = || vec![attached(json!({"attached": true}))];
    let healthy = of(Some(&node(mounted.clone())), &[], done(), NOW);
    assert!(healthy.detach.is_empty());
    assert_eq!(healthy.after, Some(UNMOUNT_MAX));
    // A healthy node is waited for; one that is not is given up after a while.
    assert!(of(Some(&node(mounted.clone())), &[], done(), UNMOUNT_MAX).detach.is_empty());
    let mut lost = mounted.clone();
    lost["status"]["conditions"] = json!([{"type": "Ready", "status": "Unknown"}]);
    assert!(of(Some(&node(lost.clone())), &[], done(), NOW).detach.is_empty());
    assert_eq!(of(Some(&node(lost)), &[], done(), UNMOUNT_MAX).detach.len(), 1);
    let mut out = mounted;
    out["spec"] = json!({"taints": [{"key": "node.kubernetes.io/out-of-service",
        "effect": "NoExecute"}]});
    let given_up = of(Some(&node(out)), &[], done(), NOW).detach;
    assert_eq!(given_up.len(), 1);
    assert_eq!(given_up[0].unless_mounted, None);
    // A node that is gone may still have it mounted.
    assert!(of(None, &[], done(), NOW).detach.is_empty());
    assert_eq!(of(None, &[], done(), UNMOUNT_MAX).detach.len(), 1);
}

#[test]
fn a_volume_for_one_node_waits_for_the_other() {
    let own = [volume(json!(["ReadWriteOnce"]))];
    let waits = elsewhere(Some(&node(json!({}))), &own, vec![], NOW, &["b"]);
    assert!(waits.attach.is_empty());
    assert_eq!(waits.blocked[0].1, ["b"]);
    let shared = [volume(json!(["ReadWriteMany"]))];
    assert_eq!(elsewhere(Some(&node(json!({}))), &shared, vec![], NOW, &["b"]).attach.len(), 1);
}

fn pod(namespace: &str, name: &str, extra: Value) -> Pod {
    let mut value = json!({"metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [], "volumes": [
            {"name": "v", "persistentVolumeClaim": {"claimName": "c"}},
            {"name": "w", "ephemeral": {}}, {"name": "x", "emptyDir": {}}]}});
    for (key, content) in extra.as_object().unwrap() {
        for (field, content) in content.as_object().unwrap() {
            value[key][field] = content.clone();
        }
    }
    serde_json::from_value(value).unwrap()
}

#[test]
fn who_waits_is_told_why_in_upstreams_words() {
    let volume = volume(json!(["ReadWriteOnce"]));
    let own = pod("n", "p", json!({}));
    let (near, far) = (pod("n", "q", json!({})), pod("m", "r", json!({})));
    let said = |users: &[&Pod]| blocked(&volume, &own, users);
    let head = "Multi-Attach error for volume \"pv\" Volume is already";
    assert_eq!(
        said(&[]),
        format!("{head} exclusively attached to one node and can't be attached to another")
    );
    assert_eq!(said(&[&near]), format!("{head} used by pod(s) q"));
    assert_eq!(said(&[&far]), format!("{head} used by 1 pod(s) in different namespaces"));
    assert_eq!(
        said(&[&near, &far]),
        format!("{head} used by pod(s) q and 1 pod(s) in different namespaces")
    );
}

#[test]
fn pods_need_their_volumes_while_containers_run() {
    let all: Vec<String> = claims(&pod("n", "p", json!({}))).collect();
    assert_eq!(all, ["c", "p-w"]);
    assert!(!is_terminated(&pod("n", "p", json!({}))));
    assert!(is_terminated(&pod("n", "p", json!({"status": {"phase": "Failed"}}))));
    let ending = |state: Value| {
        pod(
            "n",
            "p",
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
            "status": {"containerStatuses": [{"name": "c", "image": "i", "imageID": "",
                "ready": false, "restartCount": 0, "state": state}]}}),
        )
    };
    assert!(!is_terminated(&ending(json!({"running": {}}))));
    assert!(is_terminated(&ending(json!({"terminated": {"exitCode": 0}}))));
}
