//! The account behind a verified token: it, and what the token is bound to, must be those that it was
//! issued for.
//!
//! Rule: `pkg/serviceaccount/claims.go`.

use std::collections::BTreeMap;

use api::Object;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use pki::{Bound, Claims, LegacyToken};

use crate::objects::Objects;
use crate::user::{User, account_groups, account_name};

/// How long a token lives on after the end of what it is bound to, so that clocks may differ.
const LEEWAY: SignedDuration = SignedDuration::from_secs(60);
const INVALIDATED: &str = "service account token has been invalidated";

/// The token's user; otherwise why there is none any more.
pub(super) fn user(objects: &dyn Objects, claims: &Claims, now: Timestamp) -> Result<User, String> {
    let private = &claims.private;
    let there = Present { objects, now };
    let local = |bound: &Bound| format!("{}/{}", private.namespace, bound.name);
    let account = &private.serviceaccount;
    let found = there.object("serviceaccounts", &local(account));
    let found = found.ok_or_else(|| format!("serviceaccount {:?} not found", account.name))?;
    if found.meta().uid.as_ref() != account.uid {
        let uid = &found.meta().uid;
        return Err(format!("service account UID ({uid}) does not match claim ({})", account.uid));
    }
    if there.has_ended(&found) {
        return Err(format!("service account {} has been deleted", local(account)));
    }
    if let Some(secret) = &private.secret {
        there.bound("secret", ("secrets", &local(secret)), secret)?;
    }
    if let Some(pod) = &private.pod {
        there.bound("pod", ("pods", &local(pod)), pod)?;
    } else if let Some(node) = &private.node {
        // The node of a pod's token is told, and nothing more: the pod goes with it.
        there.bound("node", ("nodes", &node.name), node)?;
    }
    Ok(described(claims))
}

/// Since when a token without an end is not accepted any more, where somebody said so.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

/// The day (`2026-11-28`, UTC) on which such a token was last used.
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";

/// The use of a token without an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacyUse {
    /// Namespace and name of the Secret that has the token.
    pub secret: (String, String),
    pub secret_uid: String,
    /// The Secret was made with its account, and not by somebody who wanted it.
    pub is_generated: bool,
    /// It was refused because somebody marked it as invalid.
    pub is_invalidated: bool,
    /// The day on which it was last used, as the Secret has it.
    pub last_used: Option<String>,
}

/// The user of a token without an end: its Secret must still have it (`pkg/serviceaccount/legacy.go`). `told`
/// hears of its use.
pub(super) fn legacy_user(
    objects: &dyn Objects,
    claims: &LegacyToken,
    (token, now): (&str, Timestamp),
    told: impl FnOnce(LegacyUse),
) -> Result<User, String> {
    let there = Present { objects, now };
    let local = |name: &str| format!("{}/{name}", claims.namespace);
    let secret = there.object("secrets", &local(&claims.secret)).ok_or(INVALIDATED)?;
    if secret.meta().deletion_timestamp.is_some() {
        return Err(INVALIDATED.into());
    }
    let tree = secret.to_value();
    let kept = STANDARD.decode(tree["data"]["token"].as_str().unwrap_or("")).unwrap_or_default();
    if kept != token.as_bytes() {
        return Err("token does not match server's copy".into());
    }
    let account = there.object("serviceaccounts", &local(&claims.account));
    let account =
        account.ok_or_else(|| format!("serviceaccount {:?} not found", claims.account))?;
    if account.meta().deletion_timestamp.is_some() {
        return Err(format!("ServiceAccount {} has been deleted", local(&claims.account)));
    }
    if account.meta().uid.as_ref() != claims.account_uid {
        let uid = &account.meta().uid;
        return Err(format!(
            "ServiceAccount UID ({uid}) does not match claim ({})",
            claims.account_uid
        ));
    }
    let is_invalidated = secret.meta().label(INVALID_SINCE).is_some_and(|since| !since.is_empty());
    let account = account.to_value();
    let mut made = account["secrets"].as_array().into_iter().flatten();
    told(LegacyUse {
        secret: (claims.namespace.clone(), claims.secret.clone()),
        secret_uid: secret.meta().uid.to_string(),
        is_generated: made.any(|reference| reference["name"] == *claims.secret),
        is_invalidated,
        last_used: secret.meta().label(LAST_USED).map(str::to_owned),
    });
    if is_invalidated {
        return Err(format!(
            "the token in secret {} for service account {} has been marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the '{INVALID_SINCE}' label from the secret to temporarily allow use of this token",
            local(&claims.secret),
            local(&claims.account)
        ));
    }
    Ok(User {
        name: account_name(&claims.namespace, &claims.account),
        uid: claims.account_uid.clone(),
        groups: account_groups(&claims.namespace),
        extra: BTreeMap::new(),
    })
}

struct Present<'a> {
    objects: &'a dyn Objects,
    now: Timestamp,
}

impl Present<'_> {
    fn object(&self, resource: &str, key: &str) -> Option<std::sync::Arc<Object>> {
        self.objects.of("", resource)?.get(key)
    }

    /// Deleted, and its time is over. A date that cannot be read is no reason to live on.
    fn has_ended(&self, object: &Object) -> bool {
        let Some(text) = &object.meta().deletion_timestamp else { return false };
        let end: Result<Timestamp, _> = text.parse();
        end.map_or(true, |end| end < self.now - LEEWAY)
    }

    fn bound(
        &self,
        kind: &str,
        (resource, key): (&str, &str),
        claim: &Bound,
    ) -> Result<(), String> {
        let found = self.object(resource, key).ok_or(INVALIDATED)?;
        let uid = &found.meta().uid;
        if uid.as_ref() != claim.uid {
            return Err(format!(
                "{kind} UID ({uid}) does not match service account {kind} ref claim ({})",
                claim.uid
            ));
        }
        if self.has_ended(&found) { Err(INVALIDATED.into()) } else { Ok(()) }
    }
}

fn described(claims: &Claims) -> User {
    let private = &claims.private;
    let mut extra = BTreeMap::new();
    extra.insert(
        "authentication.kubernetes.io/credential-id".to_owned(),
        vec![format!("JTI={}", claims.jti)],
    );
    for (kind, bound) in [("pod", &private.pod), ("node", &private.node)] {
        let Some(bound) = bound else { continue };
        let mut tell = |part: &str, value: &str| {
            if !value.is_empty() {
                let key = format!("authentication.kubernetes.io/{kind}-{part}");
                extra.insert(key, vec![value.to_owned()]);
            }
        };
        tell("name", &bound.name);
        tell("uid", &bound.uid);
    }
    User {
        name: account_name(&private.namespace, &private.serviceaccount.name),
        uid: private.serviceaccount.uid.clone(),
        groups: account_groups(&private.namespace),
        extra,
    }
}
