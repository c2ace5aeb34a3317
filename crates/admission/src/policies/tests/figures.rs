//! Tests of the policies' figures. Policy names are unique to each test, because figures belong to the process.

use serde_json::json;

use super::{Configured, checking};

fn count(kind: &str, labels: &str) -> Option<u64> {
    let told = crate::figures();
    let line = format!("apiserver_{kind}_admission_policy_check_total{{{labels}}} ");
    let timed =
        format!("apiserver_{kind}_admission_policy_check_duration_seconds_count{{{labels}}} ");
    let of = |line: &str| told.lines().find_map(|l| l.strip_prefix(line)?.parse().ok());
    assert_eq!(of(&line), of(&timed), "what is counted is timed");
    of(&line)
}

#[tokio::test]
async fn validations_are_counted_by_what_the_binding_does() {
    let bound = |name: &'static str, actions: &[&str], expression: &str, failure: &str| {
        let mut spec = checking(expression);
        spec["failurePolicy"] = failure.into();
        Configured::default()
            .policy("validatingadmissionpolicies", name, spec)
            .bound(json!({"policyName": name, "validationActions": actions}))
    };
    let labels = |policy: &str, error: &str, enforcement: &str| {
        let labels = format!("enforcement_action=\"{enforcement}\",error_type=\"{error}\"");
        format!("{labels},policy=\"{policy}\",policy_binding=\"b\"")
    };
    let told = bound("figured-told", &["Warn", "Audit"], "false", "Fail");
    assert!(told.create(json!({})).await.verdict.is_ok());
    for action in ["warn", "audit"] {
        assert_eq!(count("validating", &labels("figured-told", "invalid_error", action)), Some(1));
    }
    let denied = bound("figured-denied", &["Deny"], "object.data.none == ''", "Fail");
    denied.create(json!({})).await.verdict.expect_err("refused");
    assert_eq!(count("validating", &labels("figured-denied", "invalid_error", "deny")), Some(1));
    let broken = bound("figured-broken", &["Deny"], "object.", "Fail");
    broken.create(json!({})).await.verdict.expect_err("refused");
    assert_eq!(count("validating", &labels("figured-broken", "compile_error", "deny")), Some(1));
    let ignored = bound("figured-ignored", &["Deny"], "object.data.none == ''", "Ignore");
    assert!(ignored.create(json!({})).await.verdict.is_ok());
    assert_eq!(count("validating", &labels("figured-ignored", "invalid_error", "allow")), Some(1));
    let passed = bound("figured-passed", &["Deny"], "true", "Fail");
    assert!(passed.create(json!({})).await.verdict.is_ok());
    assert!(!crate::figures().contains("figured-passed"), "what holds is not counted");
}

#[tokio::test]
async fn mutations_are_counted_each() {
    let spec = json!({"reinvocationPolicy": "Never", "failurePolicy": "Ignore", "mutations": [
        {"patchType": "ApplyConfiguration",
            "applyConfiguration": {"expression": "Object{data: {'b': '1'}}"}},
        {"patchType": "ApplyConfiguration",
            "applyConfiguration": {"expression": "Object{data: {'b': object.data.none}}"}},
    ]});
    let configured = Configured::default()
        .policy("mutatingadmissionpolicies", "figured", spec)
        .binding("mutatingadmissionpolicybindings", "b", json!({"policyName": "figured"}));
    configured.create(json!({"a": "1"})).await.verdict.expect("admitted");
    for error in ["no_error", "invalid_error"] {
        let labels = format!("error_type=\"{error}\",policy=\"figured\",policy_binding=\"b\"");
        assert_eq!(count("mutating", &labels), Some(1), "{error}");
    }
}
