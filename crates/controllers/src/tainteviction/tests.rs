//! How long pods stay.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Taint};
use serde_json::{Value, json};

use super::plan::{Stay, stay};

fn check(tolerations: Value, expected: Stay) {
    let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": {"containers": [],
        "tolerations": tolerations}}))
    .unwrap();
    let taint = Taint { key: "k".into(), effect: "NoExecute".into(), ..Taint::default() };
    assert_eq!(stay(&pod, &[taint]), expected);
}

#[test]
fn tolerations_say_how_long() {
    check(json!([]), Stay::For(Duration::ZERO));
    check(json!([{"operator": "Exists"}]), Stay::Forever);
    check(
        json!([{"key": "k", "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": 300}]),
        Stay::For(Duration::from_secs(300)),
    );
    check(json!([{"key": "other", "operator": "Exists"}]), Stay::For(Duration::ZERO));
}
