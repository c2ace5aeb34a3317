//! Credentials that change while the process runs: token files and exec plugins.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::certificate::{CurrentCertificate, certified};
use super::connect::Credentials;
use crate::exec_plugin::ExecPlugin;

/// A token file is read again after this long (client-go's `cachingFileTokenSource`).
const TOKEN_FILE_PERIOD: Duration = Duration::from_secs(60);
/// Longest token in a file.
const TOKEN_MAX: usize = 1 << 20;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What is sent with a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proof {
    /// The value of the header `Authorization`.
    pub authorization: Option<String>,
    /// Grows when connections have to be made anew, since they show another certificate.
    pub generation: u64,
}

impl Proof {
    fn bearer(token: &str) -> Proof {
        Proof { authorization: Some(format!("Bearer {token}")), generation: 0 }
    }
}

/// Gives the credentials of the moment.
pub struct Auth {
    source: Credentials,
    certificate: Arc<CurrentCertificate>,
    cached: Mutex<Cached>,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Auth")
    }
}

#[derive(Default)]
struct Cached {
    proof: Option<Proof>,
    /// When a token file is read again.
    due: Option<Instant>,
    expires: Option<Timestamp>,
    certificate_pem: String,
}

impl Auth {
    /// Fails when a certificate and its key cannot be used.
    pub fn new(source: Credentials) -> Result<Auth, rustls::Error> {
        let certificate: Arc<CurrentCertificate> = Arc::default();
        if let Credentials::Certificate { cert_pem, key_pem } = &source {
            certificate.set(Some(Arc::new(certified(cert_pem, key_pem)?)));
        }
        Ok(Auth { source, certificate, cached: Mutex::default() })
    }

    /// The client certificate of new TLS connections.
    pub fn certificate(&self) -> Arc<dyn rustls::client::ResolvesClientCert> {
        self.certificate.clone()
    }

    pub async fn proof(&self) -> Result<Proof, Failure> {
        match &self.source {
            Credentials::Anonymous | Credentials::Certificate { .. } => Ok(Proof::default()),
            Credentials::Token(token) => Ok(Proof::bearer(token)),
            Credentials::Basic { username, password } => {
                let pair = STANDARD.encode(format!("{username}:{password}"));
                Ok(Proof { authorization: Some(format!("Basic {pair}")), generation: 0 })
            }
            Credentials::TokenFile(path) => self.of_file(path).await,
            Credentials::Exec(plugin) => self.of_plugin(plugin).await,
        }
    }

    /// The server did not accept this: the next request asks anew.
    pub async fn refused(&self, proof: &Proof) {
        let mut cached = self.cached.lock().await;
        if cached.proof.as_ref() == Some(proof) {
            (cached.due, cached.expires) = (None, Some(Timestamp::UNIX_EPOCH));
        }
    }

    async fn of_file(&self, path: &std::path::Path) -> Result<Proof, Failure> {
        let mut cached = self.cached.lock().await;
        let fresh = cached.due.is_some_and(|due| Instant::now() < due);
        if let Some(proof) = cached.proof.as_ref().filter(|_| fresh) {
            return Ok(proof.clone());
        }
        cached.due = Some(Instant::now() + TOKEN_FILE_PERIOD);
        match read_token(path).await {
            Ok(token) => {
                let proof = Proof::bearer(&token);
                cached.proof = Some(proof.clone());
                Ok(proof)
            }
            // The last token that was read may still be good.
            Err(error) => cached.proof.clone().ok_or(error),
        }
    }

    async fn of_plugin(&self, plugin: &ExecPlugin) -> Result<Proof, Failure> {
        let mut cached = self.cached.lock().await;
        let fresh = cached.expires.is_none_or(|end| Timestamp::now() < end);
        if let Some(proof) = cached.proof.as_ref().filter(|_| fresh) {
            return Ok(proof.clone());
        }
        let credential = plugin.run().await?;
        let mut generation = cached.proof.as_ref().map_or(0, |proof| proof.generation);
        if credential.certificate_pem != cached.certificate_pem {
            let key = match credential.certificate_pem.is_empty() {
                true => None,
                false => Some(Arc::new(certified(
                    credential.certificate_pem.as_bytes(),
                    credential.key_pem.as_bytes(),
                )?)),
            };
            self.certificate.set(key);
            cached.certificate_pem = credential.certificate_pem;
            generation += 1;
        }
        cached.expires = credential.expires;
        let bearer = credential.token.map(|token| Proof::bearer(&token)).unwrap_or_default();
        let proof = Proof { generation, ..bearer };
        cached.proof = Some(proof.clone());
        Ok(proof)
    }
}

async fn read_token(path: &std::path::Path) -> Result<String, Failure> {
    use tokio::io::AsyncReadExt;
    let failed = |e: std::io::Error| format!("read token file {}: {e}", path.display());
    let mut text = String::new();
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    file.take(TOKEN_MAX as u64).read_to_string(&mut text).await.map_err(failed)?;
    match text.trim() {
        "" => Err(format!("read empty token from file {}", path.display()).into()),
        token => Ok(token.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_token_file_is_read_again_and_the_last_token_kept() {
        let path = std::env::temp_dir().join(format!("trireme-token-{}", std::process::id()));
        let auth = Auth::new(Credentials::TokenFile(path.clone())).expect("no certificate");
        assert!(auth.proof().await.is_err(), "there is no file");
        let token = async || auth.proof().await.expect("a token").authorization.expect("a token");
        std::fs::write(&path, "one\n").expect("written");
        tokio::time::advance(TOKEN_FILE_PERIOD).await;
        assert_eq!(token().await, "Bearer one");
        std::fs::write(&path, "two").expect("written");
        assert_eq!(token().await, "Bearer one");
        auth.refused(&auth.proof().await.expect("a token")).await;
        assert_eq!(token().await, "Bearer two", "a refused token is read again at once");
        std::fs::remove_file(&path).expect("removed");
        tokio::time::advance(TOKEN_FILE_PERIOD).await;
        assert_eq!(token().await, "Bearer two");
    }
}
