//! Certificates of clients. TLS lets every client in that holds the key of what it shows: whom it is believed to
//! be is the authenticator's question, which may find a good token beside a certificate of a stranger
//! (Go's `RequestClientCert`, and upstream's x509 authenticator).

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use crate::filters::audit::Stranger;
use crate::filters::authenticate::ProxyCertificate;

/// Asks for a certificate of one of the authorities, and takes any.
#[derive(Debug)]
pub(super) struct AnyClient(pub(super) Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for AnyClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }
}

/// The verifiers of client certificates.
#[derive(Clone)]
pub(super) struct Verifiers {
    pub(super) clients: Arc<dyn ClientCertVerifier>,
    /// Of front proxies' certificates, if any are accepted.
    pub(super) proxies: Option<Arc<dyn ClientCertVerifier>>,
}

/// Who a connection comes from.
#[derive(Debug, Clone, Default)]
pub(super) struct Client {
    /// The certificate that one of the authorities vouches for.
    pub(super) certificate: Option<Arc<[u8]>>,
    /// The certificate that an authority of front proxies vouches for.
    pub(super) proxy: Option<ProxyCertificate>,
    pub(super) stranger: Option<Stranger>,
}

impl Client {
    pub(super) fn of(chain: &[CertificateDer<'_>], known: &Verifiers) -> Client {
        let [own, others @ ..] = chain else { return Client::default() };
        let now = UnixTime::now();
        let proxies = known.proxies.as_ref();
        let proxy = proxies.filter(|by| by.verify_client_cert(own, others, now).is_ok());
        let proxy = proxy.map(|_| ProxyCertificate(own.as_ref().into()));
        match known.clients.verify_client_cert(own, others, now) {
            Ok(_) => Client { certificate: Some(own.as_ref().into()), stranger: None, proxy },
            Err(error) => {
                let why = format!("verifying certificate failed: {error}");
                Client { certificate: None, stranger: Some(Stranger(why.into())), proxy }
            }
        }
    }
}
