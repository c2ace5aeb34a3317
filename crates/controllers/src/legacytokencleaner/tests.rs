//! Which legacy tokens stay, are marked, and go.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Secret, ServiceAccount};
use serde_json::{Value, json};

use super::plan::{Step, Window, secrets_of};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn now() -> Timestamp {
    "2026-03-15T12:00:00Z".parse().unwrap()
}

fn window(since: Option<&str>) -> Result<Option<Window>, String> {
    Window::new(since, now(), 10 * DAY)
}

fn secret(labels: Value, created: &str) -> Secret {
    serde_json::from_value(json!({"metadata": {"name": "t", "namespace": "n", "labels": labels,
        "creationTimestamp": created,
        "annotations": {"kubernetes.io/service-account.name": "a",
            "kubernetes.io/service-account.uid": "u"}},
        "type": "kubernetes.io/service-account-token"}))
    .unwrap()
}

fn account(uid: &str, secrets: Value) -> ServiceAccount {
    serde_json::from_value(json!({"metadata": {"name": "a", "namespace": "n", "uid": uid},
        "secrets": secrets}))
    .unwrap()
}

fn step(labels: Value, created: &str, mounted: bool) -> Step {
    let own = account("u", json!([{"name": "t"}]));
    let window = window(Some("2025-01-01")).unwrap().unwrap();
    window.step(&secret(labels, created), Some(&own), || mounted)
}

#[test]
fn nothing_is_decided_before_use_was_tracked_for_long_enough() {
    assert!(window(Some("2026-03-05")).unwrap().is_none());
    // The day on which tracking began does not count.
    assert!(window(Some("2026-03-04")).unwrap().is_some());
    assert_eq!(window(None).unwrap_err(), "configMap does not have since label");
    assert!(window(Some("yesterday")).unwrap_err().starts_with("error parsing trackedSince time"));
}

#[test]
fn an_unused_token_is_marked_and_then_deleted() {
    let old = "2025-06-01T00:00:00Z";
    assert_eq!(step(json!({}), old, false), Step::Invalidate("2026-03-15".into()));
    let used = |day: &str| json!({"kubernetes.io/legacy-token-last-used": day});
    assert_eq!(step(used("2026-03-05"), old, false), Step::Keep);
    assert_eq!(step(used("2026-03-04"), old, false), Step::Invalidate("2026-03-15".into()));
    // A day that cannot be read says nothing; a mark that cannot be read is written anew.
    assert_eq!(step(used("2026-3-4"), old, false), Step::Keep);
    let invalid = |day: &str| json!({"kubernetes.io/legacy-token-invalid-since": day});
    assert_eq!(step(invalid("soon"), old, false), Step::Invalidate("2026-03-15".into()));
    assert_eq!(step(invalid("2026-03-05"), old, false), Step::Keep);
    assert_eq!(step(invalid("2026-03-04"), old, false), Step::Delete);
}

#[test]
fn young_mounted_and_users_own_tokens_stay() {
    assert_eq!(step(json!({}), "2026-03-14T00:00:00Z", false), Step::Keep);
    assert_eq!(step(json!({}), "2025-06-01T00:00:00Z", true), Step::Keep);
    let window = window(Some("2025-01-01")).unwrap().unwrap();
    let old = secret(json!({}), "2025-06-01T00:00:00Z");
    // No account, another of the name, one that does not name the Secret.
    assert_eq!(window.step(&old, None, || false), Step::Keep);
    let other = account("v", json!([{"name": "t"}]));
    assert_eq!(window.step(&old, Some(&other), || false), Step::Keep);
    assert_eq!(window.step(&old, Some(&account("u", json!([]))), || false), Step::Keep);
}

#[test]
fn a_pod_uses_secrets_in_many_ways() {
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {
        "imagePullSecrets": [{"name": "pull"}],
        "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "whole"}}]}],
        "containers": [{"name": "c", "env": [{"name": "E", "valueFrom":
            {"secretKeyRef": {"name": "key", "key": "k"}}}]}],
        "ephemeralContainers": [{"name": "e", "envFrom": [{"secretRef": {"name": "debug"}}]}],
        "volumes": [
            {"name": "a", "secret": {"secretName": "mounted"}},
            {"name": "b", "projected": {"sources": [{"secret": {"name": "projected"}}]}},
            {"name": "c", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "csi"}}},
            {"name": "d", "azureFile": {"secretName": "azure", "shareName": "s"}},
            {"name": "e", "iscsi": {"targetPortal": "p", "iqn": "q", "lun": 0,
                "secretRef": {"name": "iscsi"}}}]}}))
    .unwrap();
    let used: Vec<&str> = secrets_of(&pod).collect();
    assert_eq!(
        used,
        ["pull", "whole", "key", "debug", "mounted", "projected", "csi", "azure", "iscsi"]
    );
}
