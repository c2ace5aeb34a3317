//! Authentication: client certificates, service account tokens, a static token file, bootstrap tokens,
//! tokens of foreign issuers.
//!
//! Each kind of credential is tried in turn and the first that is somebody's decides; a bad one
//! beside it does no harm. With nothing but bad ones a request is refused, with none at all it is
//! anonymous, whom RBAC lets do nothing but read health and version.

mod accounts;
mod anonymous;
mod bearer;
mod bootstrap;
mod certificate;
mod configuration;
mod front_proxy;
pub mod impersonation;
mod jwt;
mod refusal;
mod token_file;
mod webhook;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use api::Status;
use http::{HeaderMap, header};
use jiff::Timestamp;
use pki::{LegacyToken, TokenError, TokenIssuer};

pub use self::accounts::LegacyUse;
pub use self::anonymous::Anonymous;
pub use self::configuration::{Configuration, ConfigurationError};
pub use self::front_proxy::FrontProxies;
pub use self::jwt::Fetch;
pub use self::refusal::Refusal;
pub use self::token_file::TokenFileError;
pub use self::webhook::TokenReviews;
use crate::authz::escalation;
use crate::objects::Objects;
use crate::user::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, User};

/// Who a credential belongs to.
pub struct Authenticator {
    tokens: Arc<TokenIssuer>,
    fixed: HashMap<String, User>,
    takes_bootstrap_tokens: bool,
    /// What the flags say of requests without credentials.
    anonymous: Anonymous,
    webhook: Option<webhook::Webhook>,
    front_proxies: Option<FrontProxies>,
    legacy_uses: OnceLock<Arc<dyn LegacyUses>>,
    fetch: Option<Arc<dyn Fetch>>,
    configuration: RwLock<Arc<Configuration>>,
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authenticator")
    }
}

/// Between two attempts to find an issuer (upstream's poll).
const DISCOVERY: Duration = Duration::from_secs(10);

/// What a request brings beside its headers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sent<'a> {
    /// The certificate (DER) that an authority of clients vouches for, or why none does.
    pub certificate: Option<Result<&'a [u8], &'a str>>,
    /// The certificate, when an authority of front proxies vouches for it.
    pub front_proxy: Option<&'a [u8]>,
    pub path: &'a str,
}

/// The sender of a request is not known.
#[derive(Debug, Clone)]
pub struct Unknown {
    /// The answer.
    pub status: Status,
    /// The token without an end that the request had, where somebody marked that as invalid.
    pub invalidated: Option<Box<LegacyUse>>,
}

/// Somebody, and the audiences that the credential is for, of those that were asked about.
#[derive(Debug, Clone)]
pub struct Known {
    pub user: User,
    pub audiences: Vec<String>,
    /// When the credential is a token without an end.
    pub legacy: Option<LegacyUse>,
}

/// The authenticated sender of a request.
#[derive(Debug)]
pub struct Sender {
    pub user: User,
    /// When the credential is a token without an end.
    pub legacy: Option<LegacyUse>,
}

impl From<User> for Sender {
    fn from(user: User) -> Sender {
        Sender { user, legacy: None }
    }
}

/// Hears of every use of a token without an end, also of those that are refused as invalidated.
pub trait LegacyUses: Send + Sync {
    /// Does not wait.
    fn used(&self, used: &LegacyUse);
}

/// What one kind of credential says: nothing, somebody, or why it is bad.
type Opinion = Result<Option<User>, String>;

impl Authenticator {
    pub fn new(tokens: Arc<TokenIssuer>) -> Authenticator {
        Authenticator {
            tokens,
            fixed: HashMap::new(),
            takes_bootstrap_tokens: false,
            anonymous: Anonymous::Everywhere,
            webhook: None,
            front_proxies: None,
            legacy_uses: OnceLock::new(),
            fetch: None,
            configuration: RwLock::new(Arc::new(Configuration::default())),
        }
    }

    /// Accepts tokens that are Secrets in `kube-system` (`--enable-bootstrap-token-auth`).
    #[must_use]
    pub fn with_bootstrap_tokens(self) -> Authenticator {
        Authenticator { takes_bootstrap_tokens: true, ..self }
    }

    /// What becomes of requests without credentials, unless a configuration says it.
    #[must_use]
    pub fn with_anonymous(self, anonymous: Anonymous) -> Authenticator {
        Authenticator { anonymous, ..self }
    }

    /// Accepts tokens of foreign issuers, whose documents come by `fetch`; [`Authenticator::configure`] says
    /// who they are.
    #[must_use]
    pub fn with_issuers(self, fetch: Arc<dyn Fetch>) -> Authenticator {
        Authenticator { fetch: Some(fetch), ..self }
    }

    /// Asks another server about tokens that nobody here knows, and keeps its answers for so long.
    #[must_use]
    pub fn with_webhook(self, reviews: Arc<dyn TokenReviews>, life: Duration) -> Authenticator {
        Authenticator { webhook: Some(webhook::Webhook::new(reviews, life)), ..self }
    }

    /// Believes proxies that say in headers who asks.
    #[must_use]
    pub fn with_front_proxies(self, front_proxies: FrontProxies) -> Authenticator {
        Authenticator { front_proxies: Some(front_proxies), ..self }
    }

    /// From now on this one hears of the use of tokens without an end, unless another does.
    pub fn tell_legacy_uses(&self, legacy_uses: Arc<dyn LegacyUses>) {
        self.legacy_uses.get_or_init(|| legacy_uses);
    }

    /// The issuer of service account tokens: nobody else may be configured under its name.
    pub fn own_issuer(&self) -> &str {
        self.tokens.issuer()
    }

    /// From now on this configuration holds. Its issuers are asked for their keys first, so that a change
    /// makes no gap for those who can be reached.
    pub async fn configure(&self, configuration: Configuration) {
        if let Some(fetch) = &self.fetch {
            for issuer in &configuration.issuers {
                issuer.discover(&**fetch).await;
            }
        }
        let mut held = self.configuration.write().unwrap_or_else(PoisonError::into_inner);
        *held = Arc::new(configuration);
    }

    fn configured(&self) -> Arc<Configuration> {
        self.configuration.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks for issuers that were not found yet, for ever.
    pub async fn find_issuers(&self) {
        let Some(fetch) = self.fetch.clone() else { return };
        loop {
            tokio::time::sleep(DISCOVERY).await;
            let configured = self.configured();
            for issuer in configured.issuers.iter().filter(|issuer| !issuer.is_found()) {
                issuer.discover(&*fetch).await;
            }
        }
    }

    /// Adds the tokens of a `--token-auth-file`: CSV of token, user, uid and quoted groups.
    pub fn with_token_file(mut self, path: &Path) -> Result<Authenticator, TokenFileError> {
        self.fixed.extend(token_file::read(path)?);
        Ok(self)
    }

    /// Who sends a request. Takes the credentials out of its headers: nobody behind here needs them.
    pub async fn request(
        &self,
        objects: &dyn Objects,
        headers: &mut HeaderMap,
        sent: &Sent<'_>,
    ) -> Result<Sender, Unknown> {
        let sender = self.first(objects, headers, sent).await?;
        headers.remove(header::AUTHORIZATION);
        bearer::remove_front_proxy(headers);
        Ok(sender)
    }

    async fn first(
        &self,
        objects: &dyn Objects,
        headers: &mut HeaderMap,
        sent: &Sent<'_>,
    ) -> Result<Sender, Unknown> {
        let (mut bad, mut invalidated) = (false, None);
        let mut heard = |opinion: Result<Option<Sender>, Refusal>| {
            opinion.unwrap_or_else(|refusal| {
                tracing::debug!(why = refusal.why, "a credential was not accepted");
                bad = true;
                invalidated = refusal.invalidated.or(invalidated.take());
                None
            })
        };
        let sender = |opinion: Opinion| -> Result<Option<Sender>, Refusal> {
            Ok(opinion?.map(|user| authenticated(user).into()))
        };
        if let (Some(proxies), Some(shown)) = (&self.front_proxies, sent.front_proxy)
            && let Some(found) = heard(sender(proxies.user(shown, headers)))
        {
            return Ok(found);
        }
        let path = sent.path;
        if let Some(found) = sent
            .certificate
            .and_then(|sent| heard(sender(sent.map_err(str::to_owned).and_then(certificate::user))))
        {
            return Ok(found);
        }
        let sent = bearer::of_header(headers).map(str::to_owned);
        if let Some(found) = heard(self.sender_of(objects, sent.as_deref()).await) {
            return Ok(found);
        }
        let sent = match bearer::of_protocols(headers) {
            Ok(None) => Ok(None),
            Ok(Some(sent)) => {
                let found = self.sender_of(objects, Some(&sent.token)).await;
                found.inspect(|_| sent.take_out(headers))
            }
            Err(why) => Err(why.into()),
        };
        if let Some(found) = heard(sent) {
            return Ok(found);
        }
        let configured = self.configured();
        let anonymous = configured.anonymous.as_ref().unwrap_or(&self.anonymous);
        if bad || !anonymous.allows(path) {
            Err(Unknown { status: Status::unauthorized(), invalidated })
        } else {
            Ok(User::anonymous().into())
        }
    }

    async fn sender_of(
        &self,
        objects: &dyn Objects,
        token: Option<&str>,
    ) -> Result<Option<Sender>, Refusal> {
        let Some(token) = token else { return Ok(None) };
        let Known { user, legacy, .. } = self.token(objects, token, &[]).await?;
        Ok(Some(Sender { user, legacy }))
    }

    /// Whose a token is that is meant for one of `audiences` (none: for this API).
    pub async fn token(
        &self,
        objects: &dyn Objects,
        token: &str,
        audiences: &[String],
    ) -> Result<Known, Refusal> {
        let api = [self.tokens.api_audience().to_owned()];
        let asked = if audiences.is_empty() { &api } else { audiences };
        let common = |own: &[String]| -> Vec<String> {
            asked.iter().filter(|audience| own.contains(audience)).cloned().collect()
        };
        let now = Timestamp::now();
        // Tokens but those of accounts say nothing of audiences of this cluster: they are for this API.
        let for_api = common(&api);
        if !for_api.is_empty()
            && let Some(Sender { user, legacy }) = self.others_token(objects, token, now).await?
        {
            return Ok(Known { user: authenticated(user), audiences: for_api, legacy });
        }
        let claims = match self.tokens.verify(token, asked, now.as_second()) {
            Ok(claims) => claims,
            Err(TokenError::Foreign) if self.webhook.is_some() => {
                let known = self.of_webhook(token, asked).await?;
                return known.ok_or_else(|| told(&TokenError::Foreign).into());
            }
            Err(error) => return Err(told(&error).into()),
        };
        let user = accounts::user(objects, &claims, now)?;
        Ok(Known { user: authenticated(user), audiences: common(&claims.aud), legacy: None })
    }

    async fn of_webhook(&self, token: &str, asked: &[String]) -> Result<Option<Known>, String> {
        let Some(webhook) = &self.webhook else { return Ok(None) };
        let known = webhook.token(token, asked).await?;
        Ok(known.map(|known| Known { user: authenticated(known.user), ..known }))
    }

    /// Whose a token is that is bound to nothing: of the file, of a Secret, of others.
    async fn others_token(
        &self,
        objects: &dyn Objects,
        token: &str,
        now: Timestamp,
    ) -> Result<Option<Sender>, Refusal> {
        if let Some(user) = self.fixed.get(token) {
            return Ok(Some(user.clone().into()));
        }
        match self.tokens.verify_legacy(token) {
            Ok(claims) => return self.legacy(objects, &claims, (token, now)).map(Some),
            Err(TokenError::Foreign) => {}
            Err(fault) => return Err(told(&fault).into()),
        }
        if self.takes_bootstrap_tokens
            && let Some(user) = bootstrap::user(objects, token, now)
        {
            return Ok(Some(user.into()));
        }
        let Some(fetch) = &self.fetch else { return Ok(None) };
        for issuer in &self.configured().issuers {
            if let Some(user) = issuer.user(&**fetch, token, now).await? {
                return Ok(Some(user.into()));
            }
        }
        Ok(None)
    }

    fn legacy(
        &self,
        objects: &dyn Objects,
        claims: &LegacyToken,
        token: (&str, Timestamp),
    ) -> Result<Sender, Refusal> {
        let mut legacy = None;
        let user = accounts::legacy_user(objects, claims, token, |used| {
            if let Some(uses) = self.legacy_uses.get() {
                uses.used(&used);
            }
            legacy = Some(used);
        });
        match user {
            Ok(user) => Ok(Sender { user, legacy }),
            Err(why) => {
                let invalidated = legacy.filter(|used| used.is_invalidated).map(Box::new);
                Err(Refusal { why, invalidated })
            }
        }
    }
}

/// Why a token is not accepted, for who asked about it.
fn told(error: &TokenError) -> String {
    match error {
        TokenError::Foreign | TokenError::Key(_) => "invalid bearer token".into(),
        TokenError::Signature => "invalid signature".into(),
        TokenError::Expired => "service account token has expired".into(),
        TokenError::TooEarly => "service account token is not valid yet".into(),
        TokenError::Subject => "sub claim is invalid".into(),
        TokenError::Audience { found, expected } => {
            let [found, expected] = [found, expected].map(|list| escalation::quoted(list));
            format!("token audiences {found} is invalid for the target audiences {expected}")
        }
    }
}

fn authenticated(mut user: User) -> User {
    let said = user.in_group(AUTHENTICATED) || user.in_group(UNAUTHENTICATED);
    if user.name != ANONYMOUS && !said {
        user.join(AUTHENTICATED);
    }
    user
}
