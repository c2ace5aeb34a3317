//! The signatures that the ConfigMap should have.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use crate::meta::name;

pub(super) const TYPE: &str = "bootstrap.kubernetes.io/token";
const NAME_PREFIX: &str = "bootstrap-token-";
const ID_LENGTH: usize = 6;
/// The signed text.
const KUBECONFIG: &str = "kubeconfig";
/// Keys of signatures; the token's id follows.
const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";

pub(super) struct Signed {
    /// The data with right signatures; none when it has them.
    pub(super) data: Option<BTreeMap<String, String>>,
    /// How long until a token that signs expires.
    pub(super) next_expiry: Option<Duration>,
}

pub(super) fn is_token(secret: &Secret) -> bool {
    secret.type_.as_deref() == Some(TYPE)
}

pub(super) fn sign(map: &ConfigMap, secrets: &[Arc<Secret>], now: Timestamp) -> Signed {
    let old = map.data.clone().unwrap_or_default();
    let Some(content) = old.get(KUBECONFIG) else {
        return Signed { data: None, next_expiry: None };
    };
    let mut new = old.clone();
    new.retain(|key, _| !key.starts_with(SIGNATURE_PREFIX));
    let mut next_expiry: Option<Duration> = None;
    let tokens = secrets.iter().filter(|s| is_token(s)).filter_map(|s| Token::of(s, now));
    for token in tokens {
        let signature = pki::detached_signature(content, token.id, token.secret);
        new.insert(format!("{SIGNATURE_PREFIX}{}", token.id), signature);
        next_expiry = next_expiry.into_iter().chain(token.left).min();
    }
    Signed { data: (new != old).then_some(new), next_expiry }
}

/// A token that may sign.
struct Token<'a> {
    id: &'a str,
    secret: &'a str,
    left: Option<Duration>,
}

impl<'a> Token<'a> {
    /// None when the Secret's name, id or secret are not those of a token, it expired, or may not sign.
    fn of(secret: &'a Secret, now: Timestamp) -> Option<Token<'a>> {
        let field = |key: &str| {
            let data = secret.data.as_ref().and_then(|data| data.get(key));
            data.map_or(Some(""), |value| std::str::from_utf8(&value.0).ok())
        };
        let named = name(&secret.metadata).strip_prefix(NAME_PREFIX)?;
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        if named.len() != ID_LENGTH || !named.bytes().all(plain) || field("token-id")? != named {
            return None;
        }
        let key = field("token-secret").filter(|key| !key.is_empty())?;
        if field("usage-bootstrap-signing")? != "true" {
            return None;
        }
        let left = match field("expiration")? {
            "" => None,
            end => {
                let left = end.parse::<Timestamp>().ok()?.duration_since(now);
                Some(Duration::try_from(left).ok().filter(|left| !left.is_zero())?)
            }
        };
        Some(Token { id: named, secret: key, left })
    }
}
