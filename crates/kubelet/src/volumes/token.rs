//! Service account tokens bound to the pod, asked for through TokenRequest and renewed in time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use client::Client;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};

use crate::spec::security::effective;
use crate::spec::{as_container, namespace_of, spec_of};

const EXPIRATION_DEFAULT_SECONDS: i64 = 3600;

#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) token: String,
    pub(super) refresh_at: Timestamp,
    pub(super) expires: Timestamp,
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
    let token = Token { token, refresh_at, expires: expires.0 };
    tokens.known.lock().unwrap_or_else(PoisonError::into_inner).insert(key, token.clone());
    Ok(token)
}

/// Owner and mode of a token's file: with one user for all containers, or a group for the volume, it
/// is theirs alone.
pub(super) fn access(pod: &Pod, asked: i32) -> (Option<u32>, i32) {
    let user = common_user(pod);
    let spec = spec_of(pod);
    let group = spec.security_context.as_ref().and_then(|s| s.fs_group);
    let mode = if user.is_some() || group.is_some() { 0o600 } else { asked };
    (user, mode)
}

/// The user that all containers run as, if the spec names one for each.
fn common_user(pod: &Pod) -> Option<u32> {
    let spec = spec_of(pod);
    let ephemeral: Vec<_> = spec.ephemeral_containers.iter().flatten().map(as_container).collect();
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let mut users = containers.chain(&ephemeral).map(|c| effective(pod, c).run_as_user);
    let first = users.next()??;
    let same = users.all(|user| user == Some(first));
    same.then(|| u32::try_from(first).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn access_of(spec: serde_json::Value) -> (Option<u32>, i32) {
        let pod = serde_json::from_value(json!({"metadata": {}, "spec": spec}));
        access(&pod.unwrap(), 0o644)
    }

    #[test]
    fn one_user_of_all_containers_owns_the_token() {
        let user = |id: i64| json!({"name": "c", "securityContext": {"runAsUser": id}});
        assert_eq!(access_of(json!({"containers": [user(7), user(7)]})), (Some(7), 0o600));
        assert_eq!(access_of(json!({"containers": [user(7), user(8)]})), (None, 0o644));
        assert_eq!(access_of(json!({"containers": [user(7), {"name": "d"}]})), (None, 0o644));
        let mixed = json!({"initContainers": [user(9)], "containers": [user(7)]});
        assert_eq!(access_of(mixed), (None, 0o644));
        let debug = json!({"containers": [user(7)], "ephemeralContainers": [{"name": "d"}]});
        assert_eq!(access_of(debug), (None, 0o644));
        let pod = json!({"securityContext": {"runAsUser": 5}, "containers": [{"name": "c"}]});
        assert_eq!(access_of(pod), (Some(5), 0o600));
        let group = json!({"securityContext": {"fsGroup": 5}, "containers": [{"name": "c"}]});
        assert_eq!(access_of(group), (None, 0o600));
    }
}
