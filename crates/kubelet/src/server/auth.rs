//! Who calls: client certificates, verified in the TLS handshake.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::NodeUser;

/// The node API's TLS settings cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("client CA certificate")]
    ClientCa(#[source] rustls::Error),
    #[error("client certificate verifier")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    #[error("serving certificate")]
    Serving(#[source] rustls::Error),
}

/// TLS with client certificates of one CA; without one a caller is anonymous.
pub fn tls_config(
    client_ca: &[CertificateDer<'static>],
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in client_ca {
        roots.add(certificate.clone()).map_err(TlsError::ClientCa)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()?;
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Serving)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(TlsError::Serving)?;
    Ok(Arc::new(config))
}

/// The common name is the user (of several the last, as for the API server), the organisations are
/// its groups. A name that is not text is nobody's.
pub(super) fn user(certificate: &CertificateDer<'_>) -> Option<NodeUser> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let subject = parsed.subject();
    let name = subject.iter_common_name().last()?.as_str().ok()?.to_owned();
    let groups = subject.iter_organization().map(|o| o.as_str().map(str::to_owned));
    let groups = groups.collect::<Result<_, _>>().ok()?;
    Some(NodeUser { name, groups, ..NodeUser::default() })
}
