//! The certificates in force, which may be exchanged while the server runs.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use tokio_rustls::TlsAcceptor;

use super::clients::{AnyClient, Client, Verifiers};

/// The server's certificate, and who may have signed clients'.
#[derive(Debug, Clone)]
pub struct TlsSetup {
    pub cert_pem: String,
    pub key_pem: String,
    pub client_ca_pem: String,
    /// PEM of the CA of front proxies' certificates, if any are accepted (`--requestheader-client-ca-file`).
    pub front_proxy_ca_pem: Option<String>,
}

/// TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("read a PEM: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("client CA: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// TLS of new connections, and who vouches for clients.
#[derive(Clone)]
pub(super) struct Acceptor {
    pub(super) tls: TlsAcceptor,
    known: Verifiers,
    /// Counts the exchanges before it.
    generation: u64,
}

/// TLS of a server's listeners.
pub struct LiveTls {
    current: RwLock<Acceptor>,
}

impl std::fmt::Debug for LiveTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LiveTls")
    }
}

impl LiveTls {
    pub fn new(setup: &TlsSetup) -> Result<LiveTls, TlsError> {
        Ok(LiveTls { current: RwLock::new(setup.acceptor(0)?) })
    }

    /// Another certificate, or other authorities. A setup that cannot be used (a key of another certificate, for
    /// example, while only one of two files is written) changes nothing. Clients that are connected are judged anew
    /// with their next request; the server's certificate is shown to new connections.
    pub fn replace(&self, setup: &TlsSetup) -> Result<(), TlsError> {
        let generation = self.acceptor().generation + 1;
        let made = setup.acceptor(generation)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = made;
        Ok(())
    }

    pub(super) fn acceptor(&self) -> Acceptor {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A verifier of certificates that the CAs in these PEMs signed.
fn verifier(pems: &[&str]) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = rustls::RootCertStore::empty();
    for cert in pems.iter().flat_map(|pem| CertificateDer::pem_slice_iter(pem.as_bytes())) {
        roots.add(cert?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let built = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    Ok(built.allow_unauthenticated().build()?)
}

impl TlsSetup {
    fn acceptor(&self, generation: u64) -> Result<Acceptor, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let proxies = self.front_proxy_ca_pem.as_deref();
        let known = Verifiers {
            clients: verifier(&[&self.client_ca_pem])?,
            proxies: proxies.map(|pem| verifier(&[pem])).transpose()?,
        };
        // Clients choose the certificate that they show by the authorities named here.
        let named = verifier(&[&self.client_ca_pem, proxies.unwrap_or("")])?;
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(self.cert_pem.as_bytes()).collect();
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Arc::new(AnyClient(named)))
            .with_single_cert(chain?, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Acceptor { tls: TlsAcceptor::from(Arc::new(config)), known, generation })
    }
}

/// The client of one connection, as the authorities of the day judge it.
pub(super) struct Judged {
    chain: Vec<CertificateDer<'static>>,
    last: Mutex<(u64, Client)>,
}

impl Judged {
    pub(super) fn new(chain: &[CertificateDer<'_>], acceptor: &Acceptor) -> Judged {
        let client = Client::of(chain, &acceptor.known);
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        Judged { chain, last: Mutex::new((acceptor.generation, client)) }
    }

    /// The client at the time of a request.
    pub(super) fn now(&self, tls: &LiveTls) -> Client {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if self.chain.is_empty() {
            return last.1.clone();
        }
        let acceptor = tls.acceptor();
        if last.0 != acceptor.generation {
            *last = (acceptor.generation, Client::of(&self.chain, &acceptor.known));
        }
        last.1.clone()
    }
}
