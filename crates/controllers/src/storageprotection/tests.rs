//! When a finalizer is put on, kept and taken off.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::plan;

const FINALIZER: &str = "kubernetes.io/pvc-protection";

fn of<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn claim(meta: Value) -> PersistentVolumeClaim {
    of(json!({"metadata": meta}))
}

fn pod(node: &str, meta: Value, volume: Value) -> Pod {
    of(json!({"metadata": meta, "spec": {"containers": [], "nodeName": node, "volumes": [volume]}}))
}

#[test]
fn the_finalizer_stays_with_use() {
    let change = |meta: Value, used| plan::change(&claim(meta).metadata, FINALIZER, used);
    let at = "2026-01-01T00:00:00Z";
    let fresh = json!({"resourceVersion": "1", "finalizers": ["x"]});
    let wanted = json!({"resourceVersion": "1", "finalizers": ["x", FINALIZER]});
    assert_eq!(change(fresh, false), Some(wanted.clone()));
    assert_eq!(change(wanted.clone(), false), None);
    let mut ending = wanted;
    ending["deletionTimestamp"] = at.into();
    assert_eq!(change(ending.clone(), true), None);
    let freed = json!({"resourceVersion": "1", "finalizers": ["x"]});
    assert_eq!(change(ending, false), Some(freed));
    let last = json!({"resourceVersion": "1", "deletionTimestamp": at, "finalizers": [FINALIZER]});
    let freed = json!({"resourceVersion": "1", "finalizers": null});
    assert_eq!(change(last, false), Some(freed));
    assert_eq!(change(json!({"deletionTimestamp": at}), false), None);
}

#[test]
fn a_pod_uses_what_it_mounts_once_it_has_a_node() {
    let data = claim(json!({"name": "data"}));
    let mounts = |name: &str| json!({"name": "v", "persistentVolumeClaim": {"claimName": name}});
    let meta = json!({"name": "p", "uid": "1"});
    assert!(plan::uses(&pod("n", meta.clone(), mounts("data")), &data));
    assert!(!plan::uses(&pod("n", meta.clone(), mounts("other")), &data));
    assert!(!plan::uses(&pod("", meta.clone(), mounts("data")), &data));
    let down = json!({"name": "p", "uid": "1", "deletionTimestamp": "2026-01-01T00:00:00Z",
        "deletionGracePeriodSeconds": 0});
    assert!(plan::uses(&pod("n", down, mounts("data")), &data));
}

#[test]
fn an_ephemeral_claim_serves_the_pod_it_was_made_for() {
    let owned_by = |uid: &str| {
        claim(json!({"name": "p-v", "ownerReferences": [
            {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": true}]}))
    };
    let volume = json!({"name": "v", "ephemeral": {}});
    let running = pod("n", json!({"name": "p", "uid": "1"}), volume.clone());
    assert!(plan::uses(&running, &owned_by("1")));
    assert!(!plan::uses(&running, &owned_by("2")));
    let down = json!({"name": "p", "uid": "1", "deletionTimestamp": "2026-01-01T00:00:00Z",
        "deletionGracePeriodSeconds": 0});
    let down = pod("n", down, volume);
    assert!(plan::lets_go(&down) && !plan::lets_go(&running));
    assert!(!plan::uses(&down, &owned_by("1")));
}

#[test]
fn classes_are_used_by_wish_state_and_way() {
    let claim: PersistentVolumeClaim = of(json!({"metadata": {},
        "spec": {"volumeAttributesClassName": "gold"},
        "status": {"currentVolumeAttributesClassName": "silver", "modifyVolumeStatus":
            {"targetVolumeAttributesClassName": "gold", "status": "Pending"}}}));
    assert_eq!(plan::classes_of_claim(&claim), ["gold", "silver"]);
    let volume: PersistentVolume = of(json!({"metadata": {},
        "spec": {"volumeAttributesClassName": ""}, "status": {"phase": "Bound"}}));
    assert!(plan::bound(&volume));
    assert_eq!(plan::classes_of_volume(&volume), [""; 0]);
}
