//! The Endpoints object of a service.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::json;

use super::plan::plan;

#[test]
fn ready_and_unready_share_a_subset() {
    let service: Service = serde_json::from_value(json!({"metadata": {"name": "s"},
        "spec": {"selector": {"a": "b"}, "ports": [{"port": 80, "targetPort": 8080}]}}))
    .unwrap();
    let pod = |ip: &str, ready: &str| -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": ip}, "status": {
            "podIP": ip, "conditions": [{"type": "Ready", "status": ready}]}}))
            .unwrap(),
        )
    };
    let pods = [pod("10.0.0.2", "False"), pod("10.0.0.1", "True")];
    let made = plan(&service, &pods, None).unwrap();
    let value = serde_json::to_value(&made).unwrap();
    assert_eq!(
        value["subsets"],
        json!([{
        "addresses": [{"ip": "10.0.0.1", "targetRef": {"kind": "Pod", "name": "10.0.0.1"}}],
        "notReadyAddresses": [{"ip": "10.0.0.2", "targetRef": {"kind": "Pod", "name": "10.0.0.2"}}],
        "ports": [{"port": 8080, "protocol": "TCP"}]}])
    );
    assert_eq!(plan(&service, &pods, Some(&made)), None);
}
