//! Validations: what is refused, told and passed.

use serde_json::{Value, json};

use super::{Configured, checking};
use crate::attributes::Operation;

#[tokio::test]
async fn a_failed_validation_is_told_as_upstream_tells_it() {
    let denied = Configured::validating(checking("object.data.a == '2'")).denying();
    let met = denied.create(json!({"a": "1"})).await;
    let status = met.verdict.expect_err("refused");
    let text = "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: failed expression: object.data.a == '2'";
    assert_eq!(status.message, format!("configmaps \"c\" is forbidden: {text}"));
    assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
    assert_eq!(status.details.expect("details").causes[0].message, text);
    assert!(denied.create(json!({"a": "2"})).await.verdict.is_ok());
}

#[tokio::test]
async fn a_policy_without_binding_and_a_binding_without_policy_do_nothing() {
    let unbound = Configured::validating(checking("false"));
    assert!(unbound.create(json!({})).await.verdict.is_ok());
    let other = Configured::validating(checking("false"))
        .bound(json!({"policyName": "other", "validationActions": ["Deny"]}));
    assert!(other.create(json!({})).await.verdict.is_ok());
}

#[tokio::test]
async fn reasons_have_their_codes() {
    for (reason, code) in
        [("Forbidden", 403), ("Unauthorized", 401), ("RequestEntityTooLarge", 413)]
    {
        let spec = json!({"validations": [{"expression": "false", "reason": reason}]});
        let met = Configured::validating(spec).denying().create(json!({})).await;
        let status = met.verdict.expect_err("refused");
        assert_eq!((status.code, status.reason.as_str()), (code, reason));
    }
}

#[tokio::test]
async fn messages_come_from_their_expression_if_it_says_something_usable() {
    for (message, by, want) in [
        ("plain", "", "plain"),
        (" trimmed ", "", "trimmed"),
        ("", "' got ' + object.data.a ", "got 1"),
        ("plain", "object.data.missing", "plain"),
        ("plain", "'two\\nlines'", "plain"),
        ("plain", "'  '", "plain"),
        ("", "['x', 'y'].join('').size() > 0 ? '' : 'z'", "failed expression: false"),
        ("plain", "string(authorizer)", "plain"),
        (
            "plain",
            "'0123456789'.replace('', '0123456789').replace('', '0123456789').replace('', '0123456789')",
            "plain",
        ),
    ] {
        let spec = json!({"validations": [
            {"expression": "false", "message": message, "messageExpression": by}]});
        let met = Configured::validating(spec).denying().create(json!({"a": "1"})).await;
        assert!(
            met.message().ends_with(&format!("denied request: {want}")),
            "{by}: {}",
            met.message()
        );
    }
}

#[tokio::test]
async fn warnings_and_audit_let_requests_pass() {
    let spec =
        json!({"validations": [{"expression": "true"}, {"expression": "false", "message": "no"}]});
    let met = Configured::validating(spec)
        .bound(json!({"validationActions": ["Warn", "Audit"]}))
        .create(json!({}))
        .await;
    assert!(met.verdict.is_ok());
    let warning = "Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': no";
    assert_eq!(met.warnings, [warning]);
    let [(key, value)] = &met.annotations[..] else { panic!("{:?}", met.annotations) };
    assert_eq!(key, "validation.policy.admission.k8s.io/validation_failure");
    let value: Value = serde_json::from_str(value).expect("JSON");
    assert_eq!(
        value,
        json!([{"message": "no", "policy": "p", "binding": "b", "expressionIndex": 1,
            "validationActions": ["Warn", "Audit"]}])
    );
}

#[tokio::test]
async fn faults_are_subject_to_the_failure_policy() {
    let fault = "object.data.missing == ''";
    let met = Configured::validating(checking(fault)).denying().create(json!({"a": "1"})).await;
    let want =
        format!("denied request: expression '{fault}' resulted in error: no such key: missing");
    assert!(met.message().ends_with(&want), "{}", met.message());
    for expression in [fault, "1 +", "'text'"] {
        let mut spec = checking(expression);
        spec["failurePolicy"] = "Ignore".into();
        let met = Configured::validating(spec).denying().create(json!({"a": "1"})).await;
        assert!(met.verdict.is_ok(), "{expression}");
    }
    let wrong = Configured::validating(checking("'text'")).denying().create(json!({})).await;
    let want = "compilation error: must evaluate to bool but got string";
    assert!(wrong.message().ends_with(want), "{}", wrong.message());
}

#[tokio::test]
async fn match_conditions_come_first() {
    for (expression, failure, refused) in [
        ("object.data.a == '9'", "Fail", None),
        ("object.data.a == '1'", "Fail", Some("failed expression: false")),
        ("object.data.none == '1'", "Ignore", None),
        ("object.data.none == '1'", "Fail", Some("no such key: none")),
        ("variables.v == 1", "Fail", Some("failed expression: false")),
    ] {
        let spec = json!({
            "failurePolicy": failure, "validations": [{"expression": "false"}],
            "variables": [{"name": "v", "expression": "1"}],
            "matchConditions": [{"name": "m", "expression": expression}],
        });
        let met = Configured::validating(spec).denying().create(json!({"a": "1"})).await;
        match refused {
            Some(why) => assert!(met.message().ends_with(why), "{expression}: {}", met.message()),
            None => assert!(met.verdict.is_ok(), "{expression}"),
        }
    }
}

#[tokio::test]
async fn bindings_narrow_what_a_policy_matches() {
    let with = |resources: Value| {
        Configured::validating(checking("false"))
            .bound(json!({"validationActions": ["Deny"], "matchResources": resources}))
    };
    let selecting = |selector: &str, labels: Value| {
        with(json!({"matchPolicy": "Exact", selector: {"matchLabels": labels}}))
    };
    assert!(
        selecting("namespaceSelector", json!({"team": "red"}))
            .create(json!({}))
            .await
            .verdict
            .is_err()
    );
    assert!(
        selecting("namespaceSelector", json!({"team": "blue"}))
            .create(json!({}))
            .await
            .verdict
            .is_ok()
    );
    assert!(
        selecting("objectSelector", json!({"k": "v"})).create(json!({})).await.verdict.is_err()
    );
    assert!(selecting("objectSelector", json!({"k": "w"})).create(json!({})).await.verdict.is_ok());
    let excluding = json!({"excludeResourceRules": [{"operations": ["CREATE"], "apiGroups": [""],
        "apiVersions": ["v1"], "resources": ["configmaps"], "resourceNames": ["c"]}]});
    assert!(with(excluding).create(json!({})).await.verdict.is_ok());
}

#[tokio::test]
async fn deletions_connections_and_namespaces_are_seen() {
    let gone =
        checking("object == null && oldObject.data.a == '1' && request.operation == 'DELETE'");
    let config = json!({"metadata": {"name": "c", "namespace": "default"}, "data": {"a": "1"}});
    let policy = Configured::validating(gone).denying();
    let met = policy.meet(Operation::Delete, ("configmaps", ""), config).await;
    assert!(met.verdict.is_ok(), "{met:?}");
    let policy = Configured::validating(checking("!object.stdin")).denying();
    let options = json!({"kind": "PodExecOptions", "stdin": true});
    let met = policy.meet(Operation::Connect, ("pods", "exec"), options).await;
    assert!(met.message().ends_with("failed expression: !object.stdin"));
    let policy = Configured::validating(checking("namespaceObject == null")).denying();
    let namespace = json!({"metadata": {"name": "new"}});
    assert!(policy.meet(Operation::Create, ("namespaces", ""), namespace).await.verdict.is_ok());
    let policy = Configured::validating(checking("namespaceObject.metadata.labels.team == 'red'"));
    assert!(policy.denying().create(json!({})).await.verdict.is_ok());
}

#[tokio::test]
async fn costs_have_a_limit_for_all_validations_together() {
    let costly = "[1,2,3,4,5,6,7,8,9,10].all(a, [1,2,3,4,5,6,7,8,9,10].all(b, \
        [1,2,3,4,5,6,7,8,9,10].all(c, [1,2,3,4,5,6,7,8,9,10].all(d, a + b + c + d > 0 && \
        [1,2,3,4,5,6,7,8,9,10].all(e, e > 0)))))";
    let many: Vec<Value> = (0..30).map(|_| json!({"expression": costly})).collect();
    let met =
        Configured::validating(json!({"validations": many})).denying().create(json!({})).await;
    let want = "denied request: validation failed due to running out of cost budget, no further validation rules will be run";
    assert!(met.message().ends_with(want), "{}", met.message());
}
