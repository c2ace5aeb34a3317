//! Which tokens sign, and when the map is written.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::{Value, json};

use super::plan::sign;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn map(data: Value) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": "cluster-info"}, "data": data})).unwrap()
}

fn token(name: &str, fields: &[(&str, &str)]) -> Arc<Secret> {
    let mut secret: Secret = serde_json::from_value(json!({"metadata": {"name": name},
        "type": "bootstrap.kubernetes.io/token"}))
    .unwrap();
    let field =
        |(key, value): &(&str, &str)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec()));
    secret.data = Some(fields.iter().map(field).collect());
    Arc::new(secret)
}

fn good(expiration: &str) -> Arc<Secret> {
    token(
        "bootstrap-token-abc123",
        &[
            ("token-id", "abc123"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-signing", "true"),
            ("expiration", expiration),
        ],
    )
}

#[test]
fn a_token_signs_until_it_expires() {
    let signed = sign(&map(json!({"kubeconfig": "c"})), &[good("2026-01-01T00:01:00Z")], now());
    let data = signed.data.unwrap();
    assert_eq!(
        data["jws-kubeconfig-abc123"],
        pki::detached_signature("c", "abc123", "0123456789abcdef")
    );
    assert_eq!(signed.next_expiry, Some(Duration::from_secs(60)));
    // What is right is not written again.
    let again = ConfigMap { data: Some(data), ..ConfigMap::default() };
    assert!(sign(&again, &[good("2026-01-01T00:01:00Z")], now()).data.is_none());
    // What is signed by nobody any more loses its signature, and nothing else.
    let expired = sign(&again, &[good("2026-01-01T00:00:00Z")], now()).data.unwrap();
    assert_eq!(expired.into_iter().collect::<Vec<_>>(), [("kubeconfig".into(), "c".into())]);
}

#[test]
fn a_map_without_kubeconfig_is_left_alone() {
    let stray = map(json!({"jws-kubeconfig-abc123": "old"}));
    assert!(sign(&stray, &[good("")], now()).data.is_none());
}

#[test]
fn what_is_no_signing_token_does_not_sign() {
    let fields = |id: &'static str, secret: &'static str, usage: &'static str| {
        [("token-id", id), ("token-secret", secret), ("usage-bootstrap-signing", usage)]
    };
    let refused = [
        token("bootstrap-token-abc12", &fields("abc12", "s", "true")),
        token("bootstrap-token-ABC123", &fields("ABC123", "s", "true")),
        token("abc123", &fields("abc123", "s", "true")),
        token("bootstrap-token-abc123", &fields("abc124", "s", "true")),
        token("bootstrap-token-abc123", &fields("abc123", "", "true")),
        token("bootstrap-token-abc123", &fields("abc123", "s", "yes")),
        token("bootstrap-token-abc123", &[]),
        good("soon"),
    ];
    for secret in refused {
        let signed = sign(&map(json!({"kubeconfig": "c"})), std::slice::from_ref(&secret), now());
        assert!(signed.data.is_none(), "{secret:?}");
    }
}
