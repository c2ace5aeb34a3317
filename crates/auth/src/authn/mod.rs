//! Authentication: client certificates, service account tokens, a static token file.
//!
//! Each kind of credential is tried in turn and the first that is somebody's decides; a bad one
//! beside it does no harm. With nothing but bad ones a request is refused, with none at all it is
//! anonymous, whom RBAC lets do nothing but read health and version.

mod accounts;
mod bearer;
mod certificate;
pub mod impersonation;
mod token_file;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use api::Status;
use http::{HeaderMap, header};
use jiff::Timestamp;
use pki::{TokenError, TokenIssuer};

pub use self::token_file::TokenFileError;
use crate::authz::escalation;
use crate::objects::Objects;
use crate::user::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, User};

/// Who a credential belongs to.
#[derive(Debug, Clone)]
pub struct Authenticator {
    tokens: Arc<TokenIssuer>,
    fixed: HashMap<String, User>,
}

/// Somebody, and the audiences that the credential is for, of those that were asked about.
#[derive(Debug, Clone)]
pub struct Known {
    pub user: User,
    pub audiences: Vec<String>,
}

/// What one kind of credential says: nothing, somebody, or why it is bad.
type Opinion = Result<Option<User>, String>;

impl Authenticator {
    pub fn new(tokens: Arc<TokenIssuer>) -> Authenticator {
        Authenticator { tokens, fixed: HashMap::new() }
    }

    /// Adds the tokens of a `--token-auth-file`: CSV of token, user, uid and quoted groups.
    pub fn with_token_file(mut self, path: &Path) -> Result<Authenticator, TokenFileError> {
        self.fixed.extend(token_file::read(path)?);
        Ok(self)
    }

    /// Who sends a request. Takes the credentials out of its headers: nobody behind here needs them.
    pub fn request(
        &self,
        objects: &dyn Objects,
        headers: &mut HeaderMap,
        certificate: Option<&[u8]>,
    ) -> Result<User, Status> {
        let user = self.first(objects, headers, certificate)?;
        headers.remove(header::AUTHORIZATION);
        bearer::remove_front_proxy(headers);
        Ok(user)
    }

    fn first(
        &self,
        objects: &dyn Objects,
        headers: &mut HeaderMap,
        certificate: Option<&[u8]>,
    ) -> Result<User, Status> {
        let mut bad = false;
        let mut heard = |opinion: Opinion| match opinion {
            Ok(found) => found.map(authenticated),
            Err(why) => {
                tracing::debug!(why, "a credential was not accepted");
                bad = true;
                None
            }
        };
        if let Some(user) = certificate.and_then(|der| heard(certificate::user(der))) {
            return Ok(user);
        }
        let by_token = |token: &str| self.token(objects, token, &[]).map(|known| Some(known.user));
        let sent = bearer::of_header(headers).map_or(Ok(None), by_token);
        if let Some(user) = heard(sent) {
            return Ok(user);
        }
        let protocols = bearer::of_protocols(headers);
        let sent = protocols.and_then(|sent| match sent {
            Some(sent) => by_token(&sent.token).inspect(|_| sent.take_out(headers)),
            None => Ok(None),
        });
        if let Some(user) = heard(sent) {
            return Ok(user);
        }
        if bad { Err(Status::unauthorized()) } else { Ok(User::anonymous()) }
    }

    /// Whose a token is that is meant for one of `audiences` (none: for this API).
    pub fn token(
        &self,
        objects: &dyn Objects,
        token: &str,
        audiences: &[String],
    ) -> Result<Known, String> {
        let api = [self.tokens.api_audience().to_owned()];
        let asked = if audiences.is_empty() { &api } else { audiences };
        let common = |own: &[String]| -> Vec<String> {
            asked.iter().filter(|audience| own.contains(audience)).cloned().collect()
        };
        // Those of the file say nothing of audiences: they are for this API.
        let for_api = common(&api);
        if let Some(user) = self.fixed.get(token).filter(|_| !for_api.is_empty()) {
            return Ok(Known { user: authenticated(user.clone()), audiences: for_api });
        }
        let now = Timestamp::now();
        let claims = self.tokens.verify(token, asked, now.as_second()).map_err(|e| told(&e))?;
        let user = accounts::user(objects, &claims, now)?;
        Ok(Known { user: authenticated(user), audiences: common(&claims.aud) })
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
