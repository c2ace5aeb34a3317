//! Who waits for a larger volume.

use serde_json::json;

use super::is_growing;

#[test]
fn only_bound_claims_that_ask_for_more_grow() {
    let grows = |requested: &str, has: &str, of: &str| {
        let claim = serde_json::from_value(json!({"metadata": {"uid": "u"},
            "spec": {"resources": {"requests": {"storage": requested}}},
            "status": {"capacity": {"storage": has}}}))
        .unwrap();
        let volume = serde_json::from_value(json!({"spec": {"claimRef": {"uid": of}}})).unwrap();
        is_growing(&claim, &volume)
    };
    assert!(grows("2Gi", "1Gi", "u"));
    assert!(!grows("1Gi", "1024Mi", "u"));
    assert!(!grows("2Gi", "1Gi", "other"));
}
