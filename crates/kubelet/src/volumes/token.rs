//! Service account tokens bound to the pod, asked for through TokenRequest and renewed in time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use client::Client;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};

use crate::spec::{namespace_of, spec_of};

const EXPIRATION_DEFAULT_SECONDS: i64 = 3600;

#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) token: String,
    pub(super) refresh_at: Timestamp,
}

/// A pod's tokens by audience and life time; lost, and asked for anew, when the agent restarts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tokens {
    known: Arc<Mutex<HashMap<(String, i64), Token>>>,
}

pub(super) async fn get(
    client: &Client,
    pod: &Pod,
    wanted: &ServiceAccountTokenProjection,
    tokens: &Tokens,
) -> Result<Token, String> {
    let seconds = wanted.expiration_seconds.unwrap_or(EXPIRATION_DEFAULT_SECONDS);
    let audience = wanted.audience.clone().unwrap_or_default();
    let key = (audience.clone(), seconds);
    let now = Timestamp::now();
    let known = tokens.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
    if let Some(token) = known.filter(|t| now < t.refresh_at) {
        return Ok(token);
    }
    let spec = spec_of(pod);
    let account = spec.service_account_name.as_deref().unwrap_or("default");
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(Some(audience).filter(|a| !a.is_empty()).into_iter().collect()),
            expiration_seconds: Some(seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
        }),
        ..TokenRequest::default()
    };
    let answer: Result<TokenRequest, _> = client
        .post_subresource::<ServiceAccount, _, _>(namespace_of(pod), account, "token", &request)
        .await;
    let answer = answer.map_err(|e| format!("failed to fetch token: {e}"))?;
    let status = answer.status.unwrap_or_default();
    // At 80 % of its life, or after a day.
    let none = "failed to fetch token: the answer has none";
    let (token, expires) = status.token.zip(status.expiration_timestamp).ok_or(none)?;
    let life = expires.0.duration_since(now);
    let wait =
        (life * 4 / 5).min(SignedDuration::from_hours(24)).max(SignedDuration::from_secs(10));
    let refresh_at = now.checked_add(wait).map_err(|e| e.to_string())?;
    let token = Token { token, refresh_at };
    tokens.known.lock().unwrap_or_else(PoisonError::into_inner).insert(key, token.clone());
    Ok(token)
}

/// Tokens are for the pod's users only, unless they would not be able to read them.
pub(super) fn mode(pod: &Pod, asked: i32) -> i32 {
    let spec = spec_of(pod);
    match spec.security_context.as_ref().and_then(|s| s.fs_group) {
        Some(_) => 0o600,
        None => asked,
    }
}
