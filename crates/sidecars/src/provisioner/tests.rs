use std::time::Duration;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use super::plan::{Turn, is_allowed, turn, volume};
use crate::context::Config;

fn config() -> Config {
    Config {
        driver: "d".into(),
        node: "n1".into(),
        socket: "/none".into(),
        namespace: "kube-system".into(),
        capacity_interval: Duration::from_secs(60),
    }
}

fn class(mode: &str, more: Value) -> StorageClass {
    let mut class =
        json!({"metadata": {"name": "c"}, "provisioner": "d", "volumeBindingMode": mode});
    for (key, value) in more.as_object().unwrap() {
        class[key] = value.clone();
    }
    serde_json::from_value(class).unwrap()
}

fn claim(annotations: Value, spec: Value) -> PersistentVolumeClaim {
    let meta = json!({"name": "x", "namespace": "s", "uid": "u", "annotations": annotations});
    serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap()
}

#[test]
fn a_claim_is_its_nodes_alone() {
    const BY: &str = "volume.kubernetes.io/storage-provisioner";
    const AT: &str = "volume.kubernetes.io/selected-node";
    let of = |annotations: Value, mode: &str| {
        turn(
            &claim(annotations, json!({"storageClassName": "c"})),
            &class(mode, json!({})),
            &config(),
        )
    };
    let late = "WaitForFirstConsumer";
    assert_eq!(of(json!({BY: "d", AT: "n1"}), late), Turn::Ours);
    assert_eq!(of(json!({BY: "d", AT: "n2"}), late), Turn::NotOurs);
    assert_eq!(of(json!({BY: "d"}), late), Turn::NotOurs);
    assert_eq!(of(json!({BY: "d"}), "Immediate"), Turn::First);
    assert_eq!(of(json!({BY: "other", AT: "n1"}), late), Turn::NotOurs);
    assert_eq!(of(json!({AT: "n1"}), late), Turn::NotOurs);
    let bound = claim(json!({BY: "d", AT: "n1"}), json!({"volumeName": "v"}));
    assert_eq!(turn(&bound, &class(late, json!({})), &config()), Turn::NotOurs);
}

#[test]
fn allowed_topologies_are_held() {
    let topology = csi::v1::Topology { segments: [("k".to_owned(), "n1".to_owned())].into() };
    let of = |values: Value| {
        let terms = json!([{"matchLabelExpressions": [{"key": "k", "values": values}]}]);
        is_allowed(&class("Immediate", json!({"allowedTopologies": terms})), &topology)
    };
    assert!(of(json!(["n0", "n1"])));
    assert!(!of(json!(["n2"])));
    assert!(is_allowed(&class("Immediate", json!({})), &topology));
}

#[test]
fn the_volumes_object_is_upstreams() {
    let class = class(
        "Immediate",
        json!({"reclaimPolicy": "Retain", "mountOptions": ["noatime"],
        "parameters": {"csi.storage.k8s.io/fstype": "ext4"}}),
    );
    let claim =
        claim(json!({}), json!({"storageClassName": "c", "accessModes": ["ReadWriteOnce"]}));
    let topology = csi::v1::Topology { segments: [("k".to_owned(), "n1".to_owned())].into() };
    let made = csi::v1::Volume {
        capacity_bytes: 1 << 30,
        volume_id: "h".into(),
        accessible_topology: vec![topology],
        ..Default::default()
    };
    let object = volume(&claim, &class, &made, "d").unwrap();
    let expected = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": "pvc-u", "annotations": {"pv.kubernetes.io/provisioned-by": "d"},
            "finalizers": ["external-provisioner.volume.kubernetes.io/finalizer"]},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": "x",
                "namespace": "s", "uid": "u"},
            "csi": {"driver": "d", "fsType": "ext4", "volumeAttributes": {}, "volumeHandle": "h"},
            "mountOptions": ["noatime"],
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions":
                [{"key": "k", "operator": "In", "values": ["n1"]}]}]}},
            "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "c",
            "volumeMode": "Filesystem"}});
    assert_eq!(serde_json::to_value(&object).unwrap(), expected);
}
