//! Certificates of clients. TLS lets every client in that holds the key of what it shows: whom it is believed to
//! be is the authenticator's question, which may find a good token beside a certificate of a stranger
//! (Go's `RequestClientCert`, and upstream's x509 authenticator).

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use crate::filters::audit::Stranger;

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

/// Who a connection comes from.
#[derive(Debug, Clone, Default)]
pub(super) struct Client {
    /// The certificate that one of the authorities vouches for.
    pub(super) certificate: Option<Arc<[u8]>>,
    pub(super) stranger: Option<Stranger>,
}

impl Client {
    pub(super) fn of(chain: &[CertificateDer<'_>], known: &dyn ClientCertVerifier) -> Client {
        let [own, others @ ..] = chain else { return Client::default() };
        match known.verify_client_cert(own, others, UnixTime::now()) {
            Ok(_) => Client { certificate: Some(own.as_ref().into()), stranger: None },
            Err(error) => {
                let why = format!("verifying certificate failed: {error}");
                Client { certificate: None, stranger: Some(Stranger(why.into())) }
            }
        }
    }
}
