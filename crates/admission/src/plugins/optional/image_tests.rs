//! Refusals of AlwaysPullImages.

use serde_json::{Value, json};

use super::tests::{Asked, chain, cluster, create, pod, why};
use crate::attributes::Operation;

/// A later mutating webhook may have set another policy.
#[tokio::test]
async fn images_that_would_not_be_pulled_are_refused() {
    let chain = chain("AlwaysPullImages", "").expect("a chain");
    let cluster = cluster(&json!({}));
    let container = |policy: Value| json!([{"name": "c", "image": "i", "imagePullPolicy": policy}]);
    let always = container(json!("Always"));
    let volume =
        |policy: Value| json!([{"name": "v", "image": {"reference": "k", "pullPolicy": policy}}]);
    let cases = [
        (
            json!({"containers": container(json!("IfNotPresent"))}),
            "spec.containers[0].imagePullPolicy",
            "IfNotPresent",
        ),
        (json!({"containers": container(Value::Null)}), "spec.containers[0].imagePullPolicy", ""),
        (
            json!({"containers": always, "initContainers": container(json!("Never"))}),
            "spec.initContainers[0].imagePullPolicy",
            "Never",
        ),
        (
            json!({"containers": always, "ephemeralContainers": container(json!("Never"))}),
            "spec.ephemeralContainers[0].imagePullPolicy",
            "Never",
        ),
        (
            json!({"containers": always, "volumes": volume(json!("Never"))}),
            "spec.volumes[0].image.pullPolicy",
            "Never",
        ),
    ];
    // As the mutating phase leaves it.
    let admitted = |mut spec: Value| {
        spec["serviceAccountName"] = "default".into();
        spec["serviceAccount"] = "default".into();
        spec["priority"] = 0.into();
        spec["preemptionPolicy"] = "PreemptLowerPriority".into();
        spec
    };
    for (spec, field, policy) in cases {
        let spec = admitted(spec);
        let told = why(create(spec.clone()).validated(&chain, &cluster).await);
        let expected = format!(
            "pods \"p\" is forbidden: {field}: Unsupported value: {policy:?}: supported values: \"Always\""
        );
        assert_eq!(told, expected);
        // The same images in an update are let be; another one is not.
        let update = |old: &Value| Asked {
            operation: Operation::Update,
            old: Some(pod(old.clone())),
            ..create(spec.clone())
        };
        update(&spec).validated(&chain, &cluster).await.expect("nothing new");
        let other = admitted(json!({"containers": [{"name": "c", "image": "other"}]}));
        update(&other).validated(&chain, &cluster).await.expect_err("a new image");
    }
    let fine = json!({"containers": always, "volumes": volume(json!("Always"))});
    create(admitted(fine)).validated(&chain, &cluster).await.expect("all are pulled");
}
