//! Authentication: client certificates, service account tokens, a static token file.
//!
//! Anonymous requests get the anonymous user, whom RBAC lets do nothing but read health and
//! version.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use api::Status;
use jiff::Timestamp;
use pki::{Claims, TokenIssuer};
use store::Store;

use crate::user::User;

/// Who a credential belongs to.
#[derive(Debug, Clone)]
pub struct Authenticator {
    tokens: Arc<TokenIssuer>,
    fixed: HashMap<String, User>,
}

/// A token file's line is malformed.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    #[error("read token file {path}")]
    Read {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{path}:{line}: expected `token,user,uid[,\"group,group\"]`")]
    Malformed { path: String, line: usize },
}

impl Authenticator {
    pub fn new(tokens: Arc<TokenIssuer>) -> Authenticator {
        Authenticator { tokens, fixed: HashMap::new() }
    }

    /// Adds the tokens of a `--token-auth-file`: CSV of token, user, uid and quoted groups.
    pub fn with_token_file(mut self, path: &Path) -> Result<Authenticator, TokenFileError> {
        let shown = || path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| TokenFileError::Read { path: shown(), source })?;
        for (at, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
            let fields = csv_fields(line);
            let [token, name, uid, rest @ ..] = fields.as_slice() else {
                return Err(TokenFileError::Malformed { path: shown(), line: at + 1 });
            };
            let groups = rest.first().map_or("", String::as_str).split(',');
            let mut user = User::new(name, &[]);
            user.uid = uid.clone();
            user.groups = groups.filter(|g| !g.is_empty()).map(|g| g.trim().to_owned()).collect();
            self.fixed.insert(token.clone(), user);
        }
        Ok(self)
    }

    /// The user of a verified client certificate.
    pub fn certificate(der: &[u8]) -> Option<User> {
        let (name, groups) = pki::subject_of(der).ok()?;
        Some(authenticated(User { name, groups, ..User::default() }))
    }

    /// The user of a bearer token meant for `audiences` (none: for this API).
    pub fn bearer(&self, store: &Store, token: &str, audiences: &[String]) -> Result<User, Status> {
        if let Some(user) = self.fixed.get(token) {
            return Ok(authenticated(user.clone()));
        }
        let claims = self
            .tokens
            .verify(token, audiences, Timestamp::now().as_second())
            .map_err(|_| Status::unauthorized())?;
        if !still_exists(store, &claims) {
            return Err(Status::unauthorized());
        }
        Ok(authenticated(service_account(&claims)))
    }
}

fn authenticated(mut user: User) -> User {
    user.groups.push("system:authenticated".into());
    user
}

/// The account, and the pod or secret the token is bound to, must be the ones it was issued for.
fn still_exists(store: &Store, claims: &Claims) -> bool {
    let private = &claims.private;
    let same = |prefix: &str, bound: &pki::Bound| {
        let key = format!("{}/{}", private.namespace, bound.name);
        let found = store.collection(prefix).and_then(|c| c.get(&key));
        found.is_some_and(|o| o.meta().uid.as_ref() == bound.uid)
    };
    same("/registry/serviceaccounts/", &private.serviceaccount)
        && private.pod.as_ref().is_none_or(|pod| same("/registry/pods/", pod))
        && private.secret.as_ref().is_none_or(|secret| same("/registry/secrets/", secret))
}

fn service_account(claims: &Claims) -> User {
    let private = &claims.private;
    let mut extra = BTreeMap::new();
    extra.insert(
        "authentication.kubernetes.io/credential-id".to_owned(),
        vec![format!("JTI={}", claims.jti)],
    );
    for (what, bound) in [("pod", &private.pod), ("node", &private.node)] {
        if let Some(bound) = bound {
            let key = |part| format!("authentication.kubernetes.io/{what}-{part}");
            extra.insert(key("name"), vec![bound.name.clone()]);
            extra.insert(key("uid"), vec![bound.uid.clone()]);
        }
    }
    User {
        name: claims.sub.clone(),
        uid: private.serviceaccount.uid.clone(),
        groups: vec![
            "system:serviceaccounts".into(),
            format!("system:serviceaccounts:{}", private.namespace),
        ],
        extra,
    }
}

/// Fields of one CSV line; quoted fields may hold commas.
fn csv_fields(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    for c in line.trim().chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    fields
}
