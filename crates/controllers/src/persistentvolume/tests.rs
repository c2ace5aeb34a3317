//! Golden cases of the binder's choices.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use serde_json::{Value, json};

use super::plan::{
    best, bound_claim, bound_volume, claim_status, default_class, lacks_class, mismatch,
    unbound_volume, undeletable, with_provisioner,
};
use crate::meta::name;

fn volume(own: &str, size: &str, more: Value) -> Arc<PersistentVolume> {
    let mut spec = json!({"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"],
        "storageClassName": "fast"});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let value = json!({"metadata": {"name": own, "labels": more["labels"],
        "annotations": more["annotations"]}, "spec": spec, "status": {"phase": "Available"}});
    Arc::new(serde_json::from_value(value).unwrap())
}

fn claim(more: Value) -> PersistentVolumeClaim {
    let mut spec = json!({"resources": {"requests": {"storage": "5Gi"}},
        "accessModes": ["ReadWriteOnce"], "storageClassName": "fast"});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    serde_json::from_value(json!({"metadata": {"name": "c", "namespace": "n", "uid": "u"},
        "spec": spec}))
    .unwrap()
}

fn of_claim(uid: &str) -> Value {
    json!({"claimRef": {"namespace": "n", "name": "c", "uid": uid}})
}

fn chosen(claim: &PersistentVolumeClaim, volumes: &[Arc<PersistentVolume>]) -> Option<String> {
    best(claim, volumes, false).map(|v| name(&v.metadata).to_owned())
}

#[test]
fn the_smallest_that_does_is_taken() {
    let all = [
        volume("small", "4Gi", json!({})),
        volume("large", "9Gi", json!({})),
        volume("right", "6Gi", json!({})),
        volume("taken", "5Gi", of_claim("other")),
        volume("slow", "5Gi", json!({"storageClassName": "slow"})),
        volume("block", "5Gi", json!({"volumeMode": "Block"})),
        volume("reading", "5Gi", json!({"accessModes": ["ReadOnlyMany"]})),
    ];
    assert_eq!(chosen(&claim(json!({})), &all).as_deref(), Some("right"));
    assert_eq!(best(&claim(json!({})), &all, true), None);
    let labelled = claim(json!({"selector": {"matchLabels": {"disk": "ssd"}}}));
    assert_eq!(chosen(&labelled, &all), None);
    let with = [volume("ssd", "50Gi", json!({"labels": {"disk": "ssd"}}))];
    assert_eq!(chosen(&labelled, &with).as_deref(), Some("ssd"));
}

#[test]
fn a_volume_that_is_meant_for_the_claim_comes_first() {
    let all = [volume("right", "5Gi", json!({})), volume("meant", "9Gi", of_claim(""))];
    assert_eq!(chosen(&claim(json!({})), &all).as_deref(), Some("meant"));
    // Even if the class waits for pods.
    let meant = best(&claim(json!({})), &all, true).unwrap();
    assert_eq!(name(&meant.metadata), "meant");
    let earlier = [volume("earlier", "9Gi", of_claim("another uid"))];
    assert_eq!(chosen(&claim(json!({})), &earlier), None);
}

#[test]
fn a_volume_that_does_not_do_is_refused_by_name() {
    let why = |volume: Arc<PersistentVolume>| mismatch(&volume, &claim(json!({}))).unwrap_err();
    assert_eq!(why(volume("v", "1Gi", json!({}))), "requested PV is too small");
    let slow = volume("v", "5Gi", json!({"storageClassName": "slow"}));
    assert_eq!(why(slow), "storageClassName does not match");
    assert_eq!(why(volume("v", "5Gi", json!({"volumeMode": "Block"}))), "incompatible volumeMode");
    let reading = volume("v", "5Gi", json!({"accessModes": ["ReadOnlyMany"]}));
    assert_eq!(why(reading), "incompatible accessMode");
    let gold = volume("v", "5Gi", json!({"volumeAttributesClassName": "gold"}));
    assert_eq!(why(gold), "volumeAttributesClassName does not match");
}

#[test]
fn both_sides_are_bound_and_let_go() {
    let (claim, free) = (claim(json!({})), volume("v", "5Gi", json!({})));
    let bound = bound_volume(&free, &claim).unwrap();
    let of = bound.spec.as_ref().unwrap().claim_ref.as_ref().unwrap();
    assert_eq!((of.uid.as_deref(), of.kind.as_deref()), (Some("u"), Some("PersistentVolumeClaim")));
    let annotations = bound.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["pv.kubernetes.io/bound-by-controller"], "yes");
    assert_eq!(bound_volume(&bound, &claim), None);
    assert_eq!(unbound_volume(&bound), *free);
    // A volume that its user meant for the claim stays so.
    let meant = volume("v", "5Gi", of_claim(""));
    let taken = bound_volume(&meant, &claim).unwrap();
    assert_eq!(taken.metadata.annotations, None);
    let left = unbound_volume(&taken).spec.unwrap().claim_ref.unwrap();
    assert_eq!((left.name.as_deref(), left.uid), (Some("c"), None));
    let of_volume = bound_claim(&claim, &bound).unwrap();
    let annotations = of_volume.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["pv.kubernetes.io/bind-completed"], "yes");
    assert_eq!(annotations["pv.kubernetes.io/bound-by-controller"], "yes");
    assert_eq!(bound_claim(&of_volume, &bound), None);
}

#[test]
fn a_claims_status_is_its_volumes() {
    let volume = volume("v", "7Gi", json!({}));
    let mut claim = claim(json!({}));
    let status = claim_status(&claim, "Bound", Some(&volume)).unwrap();
    assert_eq!(
        serde_json::to_value(&status).unwrap(),
        json!({"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "7Gi"}})
    );
    claim.status = Some(status);
    assert_eq!(claim_status(&claim, "Bound", Some(&volume)), None);
    let lost = claim_status(&claim, "Lost", None).unwrap();
    assert_eq!(serde_json::to_value(&lost).unwrap(), json!({"phase": "Lost"}));
}

#[test]
fn classes_and_provisioners() {
    let class = |own: &str, default: &str, created: &str| {
        let value = json!({"metadata": {"name": own, "creationTimestamp": created,
            "annotations": {"storageclass.kubernetes.io/is-default-class": default}},
            "provisioner": "p"});
        Arc::new(serde_json::from_value(value).unwrap())
    };
    let all = [
        class("old", "true", "2026-01-01T00:00:00Z"),
        class("new", "true", "2026-01-02T00:00:00Z"),
        class("other", "false", "2026-01-03T00:00:00Z"),
    ];
    assert_eq!(name(&default_class(&all).unwrap().metadata), "new");
    assert!(default_class(&all[2..]).is_none());
    assert!(lacks_class(&claim(json!({"storageClassName": null}))));
    assert!(!lacks_class(&claim(json!({"storageClassName": ""}))));
    let asking = with_provisioner(&claim(json!({})), "p.example").unwrap();
    let annotations = asking.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["volume.kubernetes.io/storage-provisioner"], "p.example");
    assert_eq!(with_provisioner(&asking, "p.example"), None);
}

#[test]
fn only_external_provisioners_delete() {
    let by = |provisioner: &str| {
        let annotations = json!({"pv.kubernetes.io/provisioned-by": provisioner});
        undeletable(&volume("v", "1Gi", json!({"annotations": annotations})))
    };
    assert_eq!(by("p.example"), None);
    assert!(by("kubernetes.io/gce-pd").is_some());
    let plain = undeletable(&volume("v", "1Gi", json!({"hostPath": {"path": "/x"}})));
    assert_eq!(
        plain.as_deref(),
        Some(
            "error getting deleter volume plugin for volume \"v\": no deletable volume plugin matched"
        )
    );
}
