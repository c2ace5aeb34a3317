//! Client certificates, fixed and changing ones.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

pub(super) fn general(error: impl std::fmt::Display) -> rustls::Error {
    rustls::Error::General(error.to_string())
}

/// A certificate and its key, as TLS wants them.
fn identity(cert_pem: &[u8], key_pem: &[u8]) -> Result<outgoing::Identity, rustls::Error> {
    let read = |e: rustls::pki_types::pem::Error| general(format!("read PEM: {e}"));
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert_pem).collect();
    Ok((chain.map_err(read)?, PrivateKeyDer::from_pem_slice(key_pem).map_err(read)?))
}

/// The client certificate of new TLS connections; none until a plugin gave one.
#[derive(Debug, Default)]
pub(super) struct CurrentCertificate(RwLock<Option<Arc<CertifiedKey>>>);

impl ResolvesClientCert for CurrentCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn has_certs(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

impl CurrentCertificate {
    pub(super) fn set(&self, key: Option<Arc<CertifiedKey>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = key;
    }
}

pub(super) fn certified(cert_pem: &[u8], key_pem: &[u8]) -> Result<CertifiedKey, rustls::Error> {
    let (chain, key) = identity(cert_pem, key_pem)?;
    CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())
}
