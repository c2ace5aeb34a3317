//! Who a token belongs to, and what callers may do: asked of the API server, and remembered for a while.
//!
//! Pods reach the node API with whatever they please in their headers, so the questions under way at once
//! are few, refusals are remembered too, and nothing that is remembered grows without end.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use client::Client;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use ring::digest;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config::{Authorizer, NodeUser, SystemMasters};

/// Upstream's times: of users, of what they may, and of what they may not.
const USER_TTL: Duration = Duration::from_secs(120);
const ALLOWED_TTL: Duration = Duration::from_secs(300);
const DENIED_TTL: Duration = Duration::from_secs(30);
/// A token that belongs to nobody.
const NOBODY_TTL: Duration = Duration::from_secs(10);
/// Longest wait for an answer (upstream's).
const DEADLINE: Duration = Duration::from_secs(10);
/// Questions under way at once.
const UNDER_WAY: usize = 16;
/// Longest token: the API server itself takes no longer header.
const TOKEN_MAX: usize = 16 << 10;
/// Most answers of a kind that are remembered.
const KNOWN_MAX: usize = 4096;

/// Answers with their ends.
struct Cache<K, V> {
    known: Mutex<HashMap<K, (Instant, V)>>,
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    fn new() -> Cache<K, V> {
        Cache { known: Mutex::default() }
    }

    fn get(&self, key: &K) -> Option<V> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, value) = known.get(key)?;
        (Instant::now() < *until).then(|| value.clone())
    }

    fn put(&self, key: K, value: V, ttl: Duration) {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.retain(|_, (until, _)| now < *until);
        }
        // Whoever fills it makes all be asked again, and nothing worse.
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(key, (now + ttl, value));
    }
}

type TokenHash = [u8; digest::SHA256_OUTPUT_LEN];

#[derive(PartialEq, Eq, Hash)]
struct Question {
    user: NodeUser,
    verb: String,
    subresource: String,
}

/// Asks the API server, in the node's name.
pub struct ApiReviews {
    client: Client,
    node_name: String,
    users: Cache<TokenHash, Option<NodeUser>>,
    rights: Cache<Question, bool>,
    under_way: Arc<Semaphore>,
}

impl std::fmt::Debug for ApiReviews {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiReviews({})", self.node_name)
    }
}

impl ApiReviews {
    pub fn new(client: Client, node_name: impl Into<String>) -> ApiReviews {
        ApiReviews {
            client,
            node_name: node_name.into(),
            users: Cache::new(),
            rights: Cache::new(),
            under_way: Arc::new(Semaphore::new(UNDER_WAY)),
        }
    }

    /// `None`: no answer.
    async fn ask<T>(&self, question: impl Future<Output = Result<T, client::Error>>) -> Option<T> {
        let asked = async {
            let _place = self.under_way.acquire().await.ok()?;
            question.await.inspect_err(|error| tracing::warn!(%error, "review not answered")).ok()
        };
        tokio::time::timeout(DEADLINE, asked).await.ok().flatten()
    }

    async fn is_allowed(&self, question: &Question) -> Option<bool> {
        let user = question.user.clone();
        let text = |t: String| Some(t).filter(|t| !t.is_empty());
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: text(user.name),
                groups: Some(user.groups),
                uid: text(user.uid),
                extra: Some(user.extra).filter(|e| !e.is_empty()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(question.verb.clone()),
                    version: Some("v1".into()),
                    resource: Some("nodes".into()),
                    subresource: Some(question.subresource.clone()),
                    name: Some(self.node_name.clone()),
                    ..ResourceAttributes::default()
                }),
                non_resource_attributes: None,
            },
            ..SubjectAccessReview::default()
        };
        let answer = self.ask(self.client.create("", &review)).await?;
        let status = answer.status?;
        Some(status.allowed && !status.denied.unwrap_or(false))
    }
}

#[async_trait]
impl Authorizer for ApiReviews {
    async fn authenticate(&self, token: &str) -> Option<NodeUser> {
        if token.is_empty() || token.len() > TOKEN_MAX {
            return None;
        }
        let hash = digest::digest(&digest::SHA256, token.as_bytes());
        let key: TokenHash = hash.as_ref().try_into().ok()?;
        if let Some(known) = self.users.get(&key) {
            return known;
        }
        let spec = TokenReviewSpec { token: token.to_owned(), audiences: None };
        let review = TokenReview { spec, ..TokenReview::default() };
        let answer = self.ask(self.client.create("", &review)).await?;
        let status = answer.status.unwrap_or_default();
        let user =
            status.user.filter(|_| status.authenticated.unwrap_or(false)).map(|user| NodeUser {
                name: user.username.unwrap_or_default(),
                groups: user.groups.unwrap_or_default(),
                uid: user.uid.unwrap_or_default(),
                extra: user.extra.unwrap_or_default(),
            });
        let user = user.filter(|user| !user.name.is_empty());
        self.users.put(key, user.clone(), if user.is_some() { USER_TTL } else { NOBODY_TTL });
        user
    }

    async fn allow(&self, user: &NodeUser, verb: &str, subresources: &[&str]) -> bool {
        if SystemMasters.allow(user, verb, subresources).await {
            return true;
        }
        for subresource in subresources {
            let question = Question {
                user: user.clone(),
                verb: verb.to_owned(),
                subresource: (*subresource).to_owned(),
            };
            let allowed = match self.rights.get(&question) {
                Some(known) => known,
                // Without an answer nobody is let in, and the next one asks again.
                None => match self.is_allowed(&question).await {
                    Some(allowed) => {
                        self.rights.put(
                            question,
                            allowed,
                            if allowed { ALLOWED_TTL } else { DENIED_TTL },
                        );
                        allowed
                    }
                    None => false,
                },
            };
            if allowed {
                return true;
            }
        }
        false
    }
}

/// The token of a request's `Authorization` header.
pub(super) fn bearer(headers: &http::HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn answers_are_forgotten_in_time_and_never_too_many() {
        let cache = Cache::new();
        cache.put(1, "a", USER_TTL);
        assert_eq!(cache.get(&1), Some("a"));
        tokio::time::advance(USER_TTL).await;
        assert_eq!(cache.get(&1), None);
        for key in 0..2 * KNOWN_MAX {
            cache.put(key, "b", USER_TTL);
            assert!(cache.known.lock().unwrap().len() <= KNOWN_MAX);
        }
    }

    #[test]
    fn tokens_are_found_in_their_header() {
        let of = |text: &str| {
            let mut headers = http::HeaderMap::new();
            headers.insert(http::header::AUTHORIZATION, text.parse().unwrap());
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(of("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(of("bearer  abc ").as_deref(), Some("abc"));
        assert_eq!(of("Basic abc"), None);
        assert_eq!(of("Bearer"), None);
    }
}
