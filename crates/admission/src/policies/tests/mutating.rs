//! Mutations, reinvocation, and what no policy sees.

use std::sync::Arc;

use api::registry::Registry;
use auth::{RequestInfo, User};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Configured, checking, cluster};
use crate::attributes::{Attributes, Operation};
use crate::policies::{Policies, Validating};
use crate::reinvocation::Reinvocation;
use crate::versions::Single;

fn applying(expression: &str) -> Value {
    json!({"mutations": [{"patchType": "ApplyConfiguration",
        "applyConfiguration": {"expression": expression}}], "reinvocationPolicy": "Never"})
}

fn patching(expression: &str) -> Value {
    json!({"mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
        "reinvocationPolicy": "Never"})
}

async fn mutated(spec: Value) -> Value {
    let met = Configured::mutating(spec).create(json!({"a": "1"})).await;
    met.verdict.expect("admitted")["data"].clone()
}

#[tokio::test]
async fn configurations_and_patches_change_objects() {
    let spec = applying("Object{data: {'b': object.data.a + '!'}}");
    assert_eq!(mutated(spec).await, json!({"a": "1", "b": "1!"}));
    let spec = patching("[JSONPatch{op: 'add', path: '/data/z', value: 'y'}]");
    assert_eq!(mutated(spec).await, json!({"a": "1", "z": "y"}));
    let spec = patching(
        "[JSONPatch{op: 'test', path: '/data/a', value: '9'}, JSONPatch{op: 'remove', path: '/data/a'}]",
    );
    assert_eq!(mutated(spec).await, json!({"a": "1"}), "a failed test leaves the object");
    let mut both = applying("Object{data: {'b': '2'}}");
    let copy = patching("[JSONPatch{op: 'copy', from: '/data/b', path: '/data/c'}]");
    both["mutations"].as_array_mut().expect("a list").push(copy["mutations"][0].clone());
    assert_eq!(mutated(both).await, json!({"a": "1", "b": "2", "c": "2"}));
    let mut ignored = applying("Object{data: {'b': object.data.none}}");
    ignored["failurePolicy"] = "Ignore".into();
    assert_eq!(mutated(ignored).await, json!({"a": "1"}));
}

#[tokio::test]
async fn mutations_that_fail_refuse_the_request() {
    for (spec, want) in [
        (
            patching("[JSONPatch{op: 'remove', path: '/data/none'}]"),
            "JSON Patch: error in remove for path: '/data/none': Unable to remove nonexistent key: none: missing value",
        ),
        (
            applying("Object{data: Object.spec{a: '1'}}"),
            "type mismatch: unexpected type name \"Object.spec\", expected \"Object.data\", which matches field name path from root Object type",
        ),
        (
            applying("Object{data: {'b': object.data.none}}"),
            "expression 'Object{data: {'b': object.data.none}}' resulted in error: no such key: none",
        ),
        (applying("1"), "must evaluate to Object but got int"),
        (patching("[1]"), "must evaluate to list(JSONPatch) but got list(int)"),
    ] {
        let met = Configured::mutating(spec).create(json!({"a": "1"})).await;
        let status = met.verdict.expect_err("refused");
        assert_eq!(status.message, format!("policy 'p' with binding 'b' denied request: {want}"));
        assert_eq!((status.code, status.reason.as_str()), (403, "Invalid"));
    }
}

#[tokio::test]
async fn policies_run_again_when_later_ones_change_the_object() {
    let appending = |policy: &str| {
        format!("[JSONPatch{{op: 'replace', path: '/data/a', value: object.data.a + '{policy}'}}]")
    };
    let mut first = patching(&appending("p"));
    first["reinvocationPolicy"] = "IfNeeded".into();
    let second = patching(&appending("q"));
    let both = Configured::mutating(first)
        .policy("mutatingadmissionpolicies", "q", second)
        .binding("mutatingadmissionpolicybindings", "c", json!({"policyName": "q"}));
    let met = both.create(json!({"a": ""})).await;
    assert_eq!(met.verdict.expect("admitted")["data"], json!({"a": "pqp"}));
}

#[tokio::test]
async fn a_mutated_object_is_validated_and_configurations_are_exempt() {
    let both = Configured::mutating(applying("Object{data: {'a': '2'}}"))
        .policy("validatingadmissionpolicies", "p", checking("object.data.a == '1'"))
        .denying();
    assert!(both.create(json!({"a": "1"})).await.message().contains("denied request"));
    let mut everything = checking("false");
    everything["matchConstraints"] = json!({"resourceRules": [{"operations": ["*"],
        "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]});
    let policies = Policies::new(&Configured::validating(everything).denying());
    let plugin = Validating(Arc::new(policies));
    for (group, resource, handled) in [
        ("", "pods", true),
        ("admissionregistration.k8s.io", "validatingadmissionpolicies", false),
        ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", false),
        ("authorization.k8s.io", "subjectaccessreviews", false),
        ("authentication.k8s.io", "tokenreviews", false),
    ] {
        let row = Registry::built_in().find(group, "v1", resource, "").expect("a row");
        let request = Attributes {
            operation: Operation::Create,
            user: &User::default(),
            info: &RequestInfo::default(),
            row,
            name: "",
            old: None,
            dry_run: false,
            options: &|| Value::Null,
            now: Timestamp::UNIX_EPOCH,
            deadline: None,
            cluster: &cluster(),
            versions: &Single,
            reinvocation: &Reinvocation::default(),
            warn: &|_| {},
            annotate: &|_, _| {},
        };
        let handles = crate::plugin::Plugin::handles(&plugin, &request);
        assert_eq!(handles, handled, "{resource}");
    }
}
