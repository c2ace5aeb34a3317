//! When Jobs expire.

use std::time::Duration;

use serde_json::{Value, json};

use super::plan::left;

fn seconds(ttl: Value, condition: &str, ends: Value) -> Option<u64> {
    let job = serde_json::from_value(json!({
        "metadata": {"name": "j", "deletionTimestamp": ends},
        "spec": {"ttlSecondsAfterFinished": ttl, "template": {}},
        "status": {"conditions": [{"type": condition, "status": "True",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}))
    .unwrap();
    left(&job, "2026-01-01T00:00:10Z".parse().unwrap()).as_ref().map(Duration::as_secs)
}

#[test]
fn a_job_expires_after_its_end() {
    assert_eq!(seconds(json!(30), "Complete", Value::Null), Some(20));
    assert_eq!(seconds(json!(10), "Failed", Value::Null), Some(0));
    assert_eq!(seconds(json!(0), "Failed", Value::Null), Some(0));
    assert_eq!(seconds(Value::Null, "Failed", Value::Null), None);
    assert_eq!(seconds(json!(0), "Suspended", Value::Null), None);
    assert_eq!(seconds(json!(0), "Failed", json!("2026-01-01T00:00:05Z")), None);
}
