//! When pods with tainted devices end.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceSlice};
use serde_json::{Value, json};

use super::plan::{consumers, due, evicting, has_claims};

fn pod(node: &str) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "pu"},
        "spec": {"containers": [], "nodeName": node, "resourceClaims": [
            {"name": "c", "resourceClaimName": "c"}]}}))
    .unwrap()
}

fn claim(tolerations: Value, consumer: &str) -> Arc<ResourceClaim> {
    Arc::new(
        serde_json::from_value(json!({"metadata": {"name": "c", "namespace": "n"}, "spec": {},
            "status": {"reservedFor": [{"resource": "pods", "name": "p", "uid": consumer}],
                "allocation": {"devices": {"results": [{"request": "r", "driver": "d",
                    "pool": "p", "device": "x", "tolerations": tolerations}]}}}}))
        .unwrap(),
    )
}

fn slice(generation: i64, taints: Value) -> Arc<ResourceSlice> {
    Arc::new(
        serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": {"driver": "d",
            "pool": {"name": "p", "generation": generation, "resourceSliceCount": 1},
            "devices": [{"name": "x", "taints": taints}]}}))
        .unwrap(),
    )
}

fn taint(effect: &str) -> Value {
    json!([{"key": "k", "effect": effect, "timeAdded": "2026-01-01T00:00:00Z"}])
}

fn of(pod: &Pod, claim: &Arc<ResourceClaim>, slices: &[Arc<ResourceSlice>]) -> Option<String> {
    let since: Timestamp = "2026-02-02T00:00:00Z".parse().unwrap();
    let found = due(pod, |_| Some(claim.clone()), |_| slices.to_vec(), since);
    found.map(|time| time.to_string())
}

#[test]
fn a_taint_ends_whom_it_hits_after_what_is_tolerated() {
    let hit = [slice(1, taint("NoExecute"))];
    let with = |tolerations: Value| of(&pod("a"), &claim(tolerations, "pu"), &hit);
    assert_eq!(with(json!([])).as_deref(), Some("2026-01-01T00:00:00Z"));
    let tolerates = |seconds: Value, effect: &str| {
        json!([{"key": "k", "operator": "Exists", "effect": effect,
            "tolerationSeconds": seconds}])
    };
    assert_eq!(with(tolerates(json!(60), "NoExecute")).as_deref(), Some("2026-01-01T00:01:00Z"));
    assert_eq!(with(tolerates(json!(-5), "NoExecute")).as_deref(), Some("2026-01-01T00:00:00Z"));
    assert_eq!(with(tolerates(Value::Null, "NoExecute")), None);
    // To be scheduled is not to stay.
    let other = with(tolerates(Value::Null, "NoSchedule"));
    assert_eq!(other.as_deref(), Some("2026-01-01T00:00:00Z"));
    let timeless = [slice(1, json!([{"key": "k", "effect": "NoExecute"}]))];
    let found = of(&pod("a"), &claim(json!([]), "pu"), &timeless);
    assert_eq!(found.as_deref(), Some("2026-02-02T00:00:00Z"));
}

#[test]
fn a_taint_ends_pods_with_extended_resources() {
    let hit = [slice(1, taint("NoExecute"))];
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "pu"},
        "spec": {"containers": [], "nodeName": "a"},
        "status": {"extendedResourceClaimStatus": {"resourceClaimName": "c",
            "requestMappings": []}}}))
    .unwrap();
    assert!(has_claims(&pod));
    let found = of(&pod, &claim(json!([]), "pu"), &hit);
    assert_eq!(found.as_deref(), Some("2026-01-01T00:00:00Z"));
    assert_eq!(of(&pod, &claim(json!([]), "other"), &hit), None);
}

#[test]
fn others_are_left_alone() {
    let hit = [slice(1, taint("NoExecute"))];
    let own = claim(json!([]), "pu");
    assert_eq!(of(&pod(""), &own, &hit), None);
    assert_eq!(of(&pod("a"), &claim(json!([]), "other"), &hit), None);
    assert_eq!(of(&pod("a"), &own, &[slice(1, taint("NoSchedule"))]), None);
    assert_eq!(of(&pod("a"), &own, &[]), None);
    // The newer generation has no taint.
    assert_eq!(of(&pod("a"), &own, &[hit[0].clone(), slice(2, json!([]))]), None);
}

#[test]
fn changes_lead_to_pods() {
    let keys: Vec<_> = consumers(&claim(json!([]), "pu")).collect();
    assert_eq!(keys, [("n".to_owned(), "p".to_owned())]);
    assert_eq!(evicting(&slice(1, taint("NoExecute"))).len(), 1);
    assert!(evicting(&slice(1, taint("None"))).is_empty());
}
