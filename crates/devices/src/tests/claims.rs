//! Which claims a pod has.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{DeviceTaint, DeviceToleration, ResourceClaim};
use serde_json::{Value, json};

use crate::{ClaimName, claim_name, is_for_pod, is_reserved_for, tolerates};

fn pod() -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns", "uid": "pu"},
        "spec": {"containers": [], "resourceClaims": [
            {"name": "own", "resourceClaimName": "given"},
            {"name": "made", "resourceClaimTemplateName": "t"},
            {"name": "none", "resourceClaimTemplateName": "t"},
            {"name": "soon", "resourceClaimTemplateName": "t"}, {"name": "odd"}]},
        "status": {"resourceClaimStatuses": [
            {"name": "made", "resourceClaimName": "p-made-x"}, {"name": "none"}]}}))
    .unwrap()
}

#[test]
fn an_entry_names_a_claim_or_waits_for_one() {
    let pod = pod();
    let names: Vec<_> = pod
        .spec
        .iter()
        .flat_map(|s| s.resource_claims.iter().flatten())
        .map(|entry| claim_name(&pod, entry).map_err(|why| why.to_string()))
        .collect();
    assert_eq!(
        names,
        [
            Ok(ClaimName::Given("given")),
            Ok(ClaimName::Generated("p-made-x")),
            Ok(ClaimName::NotNeeded),
            Err("pod \"ns/p\": ResourceClaim not created yet".into()),
            Err("pod \"ns/p\", spec.resourceClaim \"odd\": none of the supported fields are set"
                .into()),
        ]
    );
}

fn claim(owners: Value, reserved: Value) -> ResourceClaim {
    serde_json::from_value(json!({"metadata": {"name": "c", "namespace": "ns",
        "ownerReferences": owners}, "spec": {}, "status": {"reservedFor": reserved}}))
    .unwrap()
}

#[test]
fn a_generated_claim_belongs_to_its_pod() {
    let owner = |uid: &str, controls: bool| {
        json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid,
            "controller": controls}])
    };
    assert_eq!(is_for_pod(&pod(), &claim(owner("pu", true), json!([]))), Ok(()));
    for owners in [owner("other", true), owner("pu", false), json!([])] {
        let why = is_for_pod(&pod(), &claim(owners, json!([]))).unwrap_err();
        assert_eq!(why, "ResourceClaim ns/c was not created for Pod ns/p (Pod is not owner)");
    }
}

#[test]
fn a_claim_is_reserved_by_uid() {
    let reserved = claim(json!([]), json!([{"resource": "pods", "name": "p", "uid": "pu"}]));
    assert!(is_reserved_for(&reserved, "pu"));
    assert!(!is_reserved_for(&reserved, "p"));
}

#[test]
fn tolerations_are_for_keys_values_and_effects() {
    let taint = DeviceTaint {
        key: "k".into(),
        value: Some("v".into()),
        effect: "NoSchedule".into(),
        time_added: None,
    };
    let tolerated = |value: Value| {
        tolerates(&serde_json::from_value::<DeviceToleration>(value).unwrap(), &taint)
    };
    assert!(tolerated(json!({"operator": "Exists"})));
    assert!(tolerated(json!({"key": "k", "value": "v"})));
    assert!(tolerated(json!({"key": "k", "operator": "Equal", "value": "v",
        "effect": "NoSchedule"})));
    assert!(!tolerated(json!({"key": "k", "value": "w"})));
    assert!(!tolerated(json!({"key": "l", "operator": "Exists"})));
    assert!(!tolerated(json!({"operator": "Exists", "effect": "NoExecute"})));
    assert!(!tolerated(json!({"operator": "Unknown"})));
}
