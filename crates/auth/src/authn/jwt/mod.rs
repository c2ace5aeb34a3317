//! Tokens of foreign issuers: OpenID Connect, and whatever else signs JSON Web Tokens
//! (apiserver `plugin/pkg/authenticator/token/oidc`).
//!
//! Distributed claims (`_claim_names`) are not followed: a groups claim that is only named is refused.

mod file;
mod keys;
mod mapping;
mod provider;
mod token;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

pub(super) use file::IssuerFile;
use keys::ALGORITHMS;
use mapping::{Expression, Source, user_tree};
pub use provider::Fetch;
use provider::Provider;
use token::{Claims, Token};

use crate::user::User;

/// How far an issuer's clock may be ahead (go-oidc).
const LEEWAY: i64 = 300;

/// One issuer whose tokens are accepted.
#[derive(Debug)]
pub(super) struct Issuer {
    url: String,
    audiences: Vec<String>,
    provider: Provider,
    username: Source,
    groups: Option<Source>,
    uid: Option<Source>,
    extra: Vec<(String, Expression)>,
    /// Claims that must have a value.
    required: Vec<(String, String)>,
    claim_rules: Vec<(Expression, String)>,
    user_rules: Vec<(Expression, String)>,
}

impl Issuer {
    pub(super) fn new(
        file: IssuerFile,
        path: &str,
        own: &[&str],
        faults: &mut Vec<String>,
    ) -> Option<Issuer> {
        file.check(path, own, faults)
    }

    pub(super) fn is_found(&self) -> bool {
        self.provider.is_found()
    }

    /// Looks for the issuer's keys.
    pub(super) async fn discover(&self, fetch: &dyn Fetch) {
        if let Err(why) = self.provider.discover(fetch).await {
            tracing::error!(issuer = self.url, why, "an issuer of tokens cannot be used yet");
        }
    }

    /// Whose a token is; `None` when another issued it.
    pub(super) async fn user(
        &self,
        fetch: &dyn Fetch,
        text: &str,
        now: Timestamp,
    ) -> Result<Option<User>, String> {
        let Ok(token) = Token::parse(text) else { return Ok(None) };
        if token.issuer() != self.url {
            return Ok(None);
        }
        self.check(&token, now).map_err(verified)?;
        self.provider.verify(fetch, &token).await.map_err(verified)?;
        self.described(token.claims).map(Some)
    }

    /// What go-oidc checks before the signature.
    fn check(&self, token: &Token<'_>, now: Timestamp) -> Result<(), String> {
        if !self.provider.is_found() {
            return Err("oidc: authenticator not initialized".into());
        }
        let audiences = token.audiences();
        if !self.audiences.iter().any(|wanted| audiences.contains(&wanted.as_str())) {
            let (wanted, found) = (&self.audiences, audiences);
            return Err(format!("oidc: expected audience in {wanted:?} got {found:?}"));
        }
        let now = now.as_second();
        let end = token.time("exp").unwrap_or(0);
        if end < now {
            let end =
                Timestamp::from_second(end).map_or_else(|_| end.to_string(), |at| at.to_string());
            return Err(format!("oidc: token is expired (Token Expiry: {end})"));
        }
        if token.time("nbf").is_some_and(|start| start > now + LEEWAY) {
            return Err("oidc: current time is before the nbf (not before) time".into());
        }
        if !ALGORITHMS.contains(&token.algorithm.as_str()) {
            let found = &token.algorithm;
            return Err(format!(
                "oidc: malformed jwt: unexpected signature algorithm {found:?}; expected {ALGORITHMS:?}"
            ));
        }
        Ok(())
    }

    fn described(&self, claims: Claims) -> Result<User, String> {
        self.check_undistributed(&claims)?;
        let tree = Value::Object(claims);
        let claims = tree.as_object().ok_or("claims are an object")?;
        let source =
            |source: &Option<Source>| source.as_ref().map(|s| s.uid(claims, &tree)).transpose();
        let user = User {
            name: self.username.username(claims, &tree)?,
            groups: self
                .groups
                .as_ref()
                .map_or(Ok(Vec::new()), |groups| groups.groups(claims, &tree))?,
            uid: source(&self.uid)?.unwrap_or_default(),
            extra: self.extra(claims, &tree)?,
        };
        self.check_required(claims)?;
        for (rule, message) in &self.claim_rules {
            rule.check(&tree, message).map_err(|why| {
                format!("oidc: error evaluating claim validation expression: {why}")
            })?;
        }
        let about = user_tree(&user);
        for (rule, message) in &self.user_rules {
            rule.check(&about, message).map_err(|why| {
                format!("oidc: error evaluating user info validation rule: {why}")
            })?;
        }
        Ok(user)
    }

    fn extra(
        &self,
        claims: &Claims,
        tree: &Value,
    ) -> Result<BTreeMap<String, Vec<String>>, String> {
        let mut extra = BTreeMap::new();
        if let Some(id) = claims.get("jti").and_then(Value::as_str).filter(|id| !id.is_empty()) {
            extra.insert(
                "authentication.kubernetes.io/credential-id".to_owned(),
                vec![format!("JTI={id}")],
            );
        }
        for (key, value) in &self.extra {
            let texts = value.texts(tree).map_err(|why| {
                format!("oidc: error evaluating extra claim expression: {}: {why}", value.text)
            })?;
            if !texts.is_empty() {
                extra.insert(key.clone(), texts);
            }
        }
        Ok(extra)
    }

    fn check_required(&self, claims: &Claims) -> Result<(), String> {
        for (name, wanted) in &self.required {
            let found = claims.get(name);
            let found = found
                .ok_or_else(|| format!("oidc: required claim {name} not present in ID token"))?;
            let found =
                found.as_str().ok_or_else(|| format!("oidc: parse claim {name}: not a string"))?;
            if found != wanted {
                return Err(format!(
                    "oidc: required claim {name} value does not match. Got = {found}, want = {wanted}"
                ));
            }
        }
        Ok(())
    }

    fn check_undistributed(&self, claims: &Claims) -> Result<(), String> {
        let Some(Source::Claim { name, .. }) = &self.groups else { return Ok(()) };
        let elsewhere = claims.get("_claim_names").and_then(|names| names.get(name));
        match !claims.contains_key(name) && elsewhere.is_some() {
            true => Err(format!(
                "oidc: could not expand distributed claims: claim {name:?} is kept elsewhere, which is not supported"
            )),
            false => Ok(()),
        }
    }
}

fn verified(why: String) -> String {
    format!("oidc: verify token: {why}")
}
