//! When bootstrap tokens end.

use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::left;

fn of(kind: &str, expiration: Option<&str>) -> Option<Duration> {
    let data = expiration
        .map(|text| [("expiration".to_owned(), ByteString(text.as_bytes().to_vec()))].into());
    let secret = Secret { type_: Some(kind.into()), data, ..Secret::default() };
    left(&secret, "2026-01-01T00:00:00Z".parse().unwrap())
}

#[test]
fn only_bootstrap_tokens_with_an_end_expire() {
    let token = "bootstrap.kubernetes.io/token";
    assert_eq!(of(token, Some("2026-01-01T00:01:00Z")), Some(Duration::from_secs(60)));
    assert_eq!(of(token, Some("2025-01-01T00:00:00Z")), Some(Duration::ZERO));
    assert_eq!(of(token, Some("soon")), Some(Duration::ZERO));
    assert_eq!(of(token, Some("")), None);
    assert_eq!(of(token, None), None);
    assert_eq!(of("Opaque", Some("2025-01-01T00:00:00Z")), None);
}
