//! What of Endpoints slices show.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::plan::{faults, is_mirrored, nothing, plan};
use crate::endpointslice::plan::Plan;

fn endpoints(subsets: Value) -> Endpoints {
    serde_json::from_value(json!({"metadata": {"name": "e", "namespace": "n", "uid": "u",
        "labels": {"x": "y"}, "annotations": {"a": "b",
            "kubectl.kubernetes.io/last-applied-configuration": "{}"}}, "subsets": subsets}))
    .unwrap()
}

fn named(plan: Plan) -> Vec<Arc<EndpointSlice>> {
    let name = |(i, mut s): (usize, EndpointSlice)| {
        s.metadata.name = Some(format!("e-{i}"));
        Arc::new(s)
    };
    plan.create.into_iter().enumerate().map(name).collect()
}

#[test]
fn a_subset_is_a_slice_of_each_family() {
    let object =
        endpoints(json!([{"addresses": [{"ip": "10.0.0.1", "hostname": "h"}, {"ip": "fd00::1"}],
        "notReadyAddresses": [{"ip": "10.0.0.2"}, {"ip": "10.0.0.1"}],
        "ports": [{"name": "p", "port": 80}]}]));
    let plan_ = plan(&object, &[]);
    let made = serde_json::to_value(&plan_.create).unwrap();
    assert_eq!(made[0]["addressType"], "IPv4");
    assert_eq!(
        made[0]["endpoints"],
        json!([{"addresses": ["10.0.0.1"], "hostname": "h", "conditions": {"ready": true}},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": false}}])
    );
    assert_eq!(made[0]["ports"], json!([{"name": "p", "port": 80, "protocol": "TCP"}]));
    assert_eq!(made[0]["metadata"]["annotations"], json!({"a": "b"}));
    assert_eq!(
        made[0]["metadata"]["labels"],
        json!({"x": "y", "kubernetes.io/service-name": "e",
            "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io"})
    );
    assert_eq!(made[0]["metadata"]["ownerReferences"][0]["kind"], "Endpoints");
    assert_eq!(made[1]["addressType"], "IPv6");
    let slices = named(plan_);
    assert_eq!(plan(&object, &slices), Plan::default());
    // Less is the same slice with less; nothing is no slice.
    let less = endpoints(
        json!([{"addresses": [{"ip": "10.0.0.9"}], "ports": [{"name": "p", "port": 80}]}]),
    );
    let change = plan(&less, &slices);
    assert_eq!((change.create.len(), change.update.len(), change.delete.len()), (0, 1, 1));
    assert_eq!(plan(&endpoints(json!(null)), &slices).delete.len(), 2);
    assert_eq!(nothing(&slices).delete.len(), 2);
}

#[test]
fn what_others_show_is_not_mirrored() {
    let bare: Service = serde_json::from_value(json!({"metadata": {}, "spec": {}})).unwrap();
    let selecting: Service =
        serde_json::from_value(json!({"metadata": {}, "spec": {"selector": {"a": "b"}}})).unwrap();
    let mut object = endpoints(json!([]));
    assert!(is_mirrored(&object, &bare));
    assert!(!is_mirrored(&object, &selecting));
    let skip = ("endpointslice.kubernetes.io/skip-mirror".to_owned(), "true".to_owned());
    object.metadata.labels = Some([skip].into());
    assert!(!is_mirrored(&object, &bare));
}

#[test]
fn what_is_left_out_is_told() {
    let many: Vec<Value> =
        (0..1002).map(|n| json!({"ip": format!("10.0.{}.{}", n / 250, n % 250)})).collect();
    let object = endpoints(json!([{"addresses": many}, {"addresses": [{"ip": "x"}]}]));
    let all = faults(&object);
    let reasons: Vec<_> = all.iter().map(|(reason, _)| *reason).collect();
    assert_eq!(reasons, ["InvalidIPAddress", "TooManyAddressesToMirror"]);
    assert!(all[1].1.ends_with("3 addresses were skipped"));
    assert_eq!(plan(&object, &[]).create[0].endpoints.as_ref().unwrap().len(), 1000);
}
