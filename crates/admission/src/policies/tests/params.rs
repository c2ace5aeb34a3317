//! Parameters, and the audit annotations that depend on them.

use serde_json::{Value, json};

use super::Configured;
use crate::attributes::Operation;

fn with_params(reference: Value) -> Configured {
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "validations": [{"expression": "params == null || int(object.data.n) <= int(params.data.max)",
            "messageExpression": "'max ' + params.data.max"}],
    });
    Configured::validating(spec)
        .bound(json!({"validationActions": ["Deny"], "paramRef": reference}))
}

#[tokio::test]
async fn parameters_are_named_or_selected() {
    let n = |n: &str| json!({"n": n});
    let named = |namespace: &str, name: &str, missing: &str| {
        with_params(
            json!({"name": name, "namespace": namespace, "parameterNotFoundAction": missing}),
        )
    };
    assert!(named("", "five", "Deny").create(n("5")).await.verdict.is_ok());
    assert!(named("", "five", "Deny").create(n("6")).await.message().ends_with("request: max 5"));
    assert!(named("elsewhere", "far", "Deny").create(n("2")).await.message().ends_with("max 1"));
    assert!(named("", "none", "Allow").create(n("6")).await.verdict.is_ok());
    let missing = named("", "none", "Deny").create(n("6")).await;
    let want = "with binding 'b' denied request: failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    assert!(missing.message().ends_with(want), "{}", missing.message());
    let selected = with_params(json!({"selector": {"matchLabels": {"is": "param"}},
        "parameterNotFoundAction": "Deny"}));
    assert!(selected.create(n("5")).await.verdict.is_ok());
    assert!(selected.create(n("7")).await.message().ends_with("max 5"));
    assert!(selected.create(n("10")).await.message().ends_with("max 5"), "the first is told");
    let unreferenced = with_params(Value::Null);
    assert!(unreferenced.create(n("99")).await.verdict.is_ok(), "params are null");
}

#[tokio::test]
async fn parameters_that_cannot_be_are_refused() {
    let kinds = |kind: Value, reference: Value| {
        let spec = json!({"paramKind": kind, "validations": [{"expression": "true"}]});
        Configured::validating(spec)
            .bound(json!({"validationActions": ["Deny"], "paramRef": reference}))
    };
    let unknown = kinds(json!({"apiVersion": "x.io/v1", "kind": "Nope"}), json!({"name": "a"}));
    let met = unknown.create(json!({})).await;
    let want = "ValidatingAdmissionPolicy 'p' denied request: failed to configure policy: failed to find resource referenced by paramKind: 'x.io/v1, Kind=Nope'";
    assert!(met.message().ends_with(want), "{}", met.message());
    let cluster_scoped = json!({"apiVersion": "v1", "kind": "Node"});
    let met = kinds(cluster_scoped.clone(), json!({"name": "n", "namespace": "x"}))
        .create(json!({}))
        .await;
    let want = "paramRef.namespace must not be provided for a cluster-scoped `paramKind`";
    assert!(met.message().ends_with(want), "{}", met.message());
    assert!(kinds(cluster_scoped, json!({"name": "n"})).create(json!({})).await.verdict.is_ok());
    let namespaced =
        kinds(json!({"apiVersion": "v1", "kind": "ConfigMap"}), json!({"name": "five"}));
    let namespace = json!({"metadata": {"name": "new"}});
    let met = namespaced.meet(Operation::Create, ("namespaces", ""), namespace).await;
    let want =
        "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
    assert!(met.message().ends_with(want), "{}", met.message());
}

#[tokio::test]
async fn audit_annotations_are_published_once_a_value() {
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}, "validations": [{"expression": "true"}],
        "auditAnnotations": [
            {"key": "max", "valueExpression": "' ' + params.data.max"},
            {"key": "same", "valueExpression": "string(object.data.a)"},
            {"key": "null", "valueExpression": "null"},
            {"key": "blank", "valueExpression": "'  '"},
        ],
    });
    let reference =
        json!({"selector": {"matchLabels": {"is": "param"}}, "parameterNotFoundAction": "Deny"});
    let bound = Configured::validating(spec)
        .bound(json!({"validationActions": ["Deny"], "paramRef": reference}));
    let met = bound.create(json!({"a": "1"})).await;
    let want = [("p/max", "5, 9"), ("p/same", "1")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(met.annotations, want);
    let failing =
        json!({"auditAnnotations": [{"key": "k", "valueExpression": "string(object.data.none)"}]});
    let met = Configured::validating(failing.clone()).denying().create(json!({"a": "1"})).await;
    assert!(met.message().ends_with("no such key: none"), "{}", met.message());
    let mut ignoring = failing;
    ignoring["failurePolicy"] = "Ignore".into();
    let met = Configured::validating(ignoring).denying().create(json!({"a": "1"})).await;
    assert!(met.verdict.is_ok() && met.annotations.is_empty());
}
