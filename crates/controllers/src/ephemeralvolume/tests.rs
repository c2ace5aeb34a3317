//! Claims of ephemeral volumes.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::{Value, json};

use super::plan::{Missing, missing};

fn pod(phase: &str) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
        "spec": {"containers": [], "volumes": [{"name": "plain", "emptyDir": {}},
            {"name": "v", "ephemeral": {"volumeClaimTemplate": {"metadata": {"labels": {"a": "b"}},
                "spec": {"storageClassName": "fast"}}}}]}, "status": {"phase": phase}}))
    .unwrap()
}

fn claim(owners: Value) -> Option<Arc<PersistentVolumeClaim>> {
    let value = json!({"metadata": {"name": "p-v", "ownerReferences": owners}});
    Some(Arc::new(serde_json::from_value(value).unwrap()))
}

#[test]
fn a_pod_gets_its_claim_once() {
    let [Missing::Claim(_, made)] = &missing(&pod("Pending"), |_| None)[..] else { panic!() };
    assert_eq!(made.metadata.name.as_deref(), Some("p-v"));
    assert_eq!(made.metadata.labels.as_ref().unwrap()["a"], "b");
    assert_eq!(made.metadata.owner_references.as_ref().unwrap()[0].uid, "u");
    let class = made.spec.as_ref().unwrap().storage_class_name.as_deref();
    assert_eq!(class, Some("fast"));
    let ours = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u",
        "controller": true}]);
    assert!(missing(&pod("Pending"), |_| claim(ours.clone())).is_empty());
    assert!(missing(&pod("Succeeded"), |_| None).is_empty());
}

#[test]
fn a_claim_of_somebody_else_is_refused() {
    let [Missing::Foreign(message)] = &missing(&pod("Pending"), |_| claim(json!([])))[..] else {
        panic!()
    };
    assert_eq!(
        message,
        "ephemeral volume v: PVC n/p-v was not created for pod n/p (pod is not owner)"
    );
}
