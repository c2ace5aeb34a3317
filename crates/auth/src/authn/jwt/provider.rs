//! An issuer's documents: where its keys are, and the keys, which change.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::keys::Keys;
use super::token::Token;

/// Gets documents over HTTPS.
pub trait Fetch: Send + Sync {
    /// The body of a successful answer, or why there is none. `authorities` is PEM; blank means those of the
    /// machine. Answers are bounded in time and size by whoever implements this.
    fn get<'a>(
        &'a self,
        url: &'a str,
        authorities: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send + 'a>>;
}

/// Shortest time between two looks at an issuer's keys: tokens with unknown keys cost no more than that.
const LOOK: Duration = Duration::from_secs(1);

/// One issuer, as far as it is known.
#[derive(Debug)]
pub(super) struct Provider {
    issuer: String,
    /// Where its description is.
    document: String,
    authorities: String,
    found: RwLock<Option<Found>>,
    looked: Mutex<Option<Instant>>,
    /// One look at a time.
    looking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone)]
struct Found {
    keys_at: String,
    keys: Arc<Keys>,
}

impl Provider {
    pub(super) fn new(issuer: &str, discovery: &str, authorities: &str) -> Provider {
        let document = match discovery {
            "" => format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')),
            other => other.to_owned(),
        };
        Provider {
            issuer: issuer.to_owned(),
            document,
            authorities: authorities.to_owned(),
            found: RwLock::default(),
            looked: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn is_found(&self) -> bool {
        self.found().is_some()
    }

    fn found(&self) -> Option<Found> {
        self.found.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the issuer's description and its keys (OpenID Connect Discovery 1.0, section 4).
    pub(super) async fn discover(&self, fetch: &dyn Fetch) -> Result<(), String> {
        let document = self.json(fetch, &self.document).await?;
        let issuer = document["issuer"].as_str().unwrap_or("");
        if issuer != self.issuer {
            let expected = &self.issuer;
            return Err(format!(
                "oidc: issuer did not match the issuer returned by provider, expected {expected:?} got {issuer:?}"
            ));
        }
        let keys_at = document["jwks_uri"].as_str().filter(|at| !at.is_empty());
        let keys_at = keys_at.ok_or("provider did not return JWKS URL")?.to_owned();
        let keys = Arc::new(Keys::parse(&self.json(fetch, &keys_at).await?)?);
        self.keep(Found { keys_at, keys });
        Ok(())
    }

    fn keep(&self, found: Found) {
        *self.found.write().unwrap_or_else(PoisonError::into_inner) = Some(found);
    }

    async fn json(&self, fetch: &dyn Fetch, url: &str) -> Result<Value, String> {
        let body = fetch.get(url, &self.authorities).await?;
        serde_json::from_slice(&body).map_err(|e| format!("{url}: {e}"))
    }

    /// Whether the issuer signed the token. Its keys are read again when none of those known did.
    pub(super) async fn verify(&self, fetch: &dyn Fetch, token: &Token<'_>) -> Result<(), String> {
        let signed = |keys: &Keys| {
            let key = (token.algorithm.as_str(), token.key_id.as_str());
            keys.verify(key, token.message.as_bytes(), &token.signature)
        };
        let known = self.found().ok_or("oidc: authenticator not initialized")?;
        if signed(&known.keys) {
            return Ok(());
        }
        let _alone = self.looking.lock().await;
        let known = self.found().ok_or("oidc: authenticator not initialized")?;
        // Another may have looked meanwhile.
        if !signed(&known.keys) && self.may_look() {
            let read = self.json(fetch, &known.keys_at).await;
            // Who waited for a slow issuer does not wait for it once more.
            self.looked_now();
            let keys = Arc::new(Keys::parse(&read?)?);
            self.keep(Found { keys, ..known });
        }
        match self.found().is_some_and(|found| signed(&found.keys)) {
            true => Ok(()),
            false => Err("failed to verify signature: failed to verify id token signature".into()),
        }
    }

    fn may_look(&self) -> bool {
        let looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        looked.is_none_or(|at| at.elapsed() >= LOOK)
    }

    fn looked_now(&self) {
        *self.looked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}
