//! TLS towards webhooks. A webhook's certificate is signed by its `caBundle` or by the machine's
//! authorities.
//!
//! As Go does, and rustls alone does not, a certificate that is itself in the bundle is accepted
//! though it is marked as an authority: that is what `openssl req -x509` makes.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::endpoint::Endpoint;

/// The client's side of TLS towards an endpoint, with the certificate to show.
pub(crate) fn config(
    endpoint: &Endpoint,
    certificate: Arc<dyn ResolvesClientCert>,
) -> Result<ClientConfig, String> {
    client_tls(&endpoint.ca_pem, endpoint.is_insecure, certificate)
}

/// The client's side of TLS towards a server of the cluster: by the PEM of its authorities (blank for the
/// machine's), or whoever it is.
pub fn client_tls(
    ca_pem: &[u8],
    is_insecure: bool,
    certificate: Arc<dyn ResolvesClientCert>,
) -> Result<ClientConfig, String> {
    let mut config = match is_insecure {
        true => {
            outgoing::client_config(outgoing::Trust::Anybody, None).map_err(|e| e.to_string())?
        }
        false => verified(ca_pem)?,
    };
    config.client_auth_cert_resolver = certificate;
    // One connection a request in flight, so that requests spread over a service's endpoints.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn verified(bundle: &[u8]) -> Result<ClientConfig, String> {
    let blank = bundle.iter().all(u8::is_ascii_whitespace);
    let given = if blank { Vec::new() } else { given(bundle)? };
    let roots = if blank { outgoing::machine_roots() } else { store(&given) };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let web = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let web = web.build().map_err(|e| e.to_string())?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { web, given }));
    Ok(builder.with_no_client_auth())
}

fn given(bundle: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(bundle).flatten().collect();
    if all.is_empty() {
        return Err("unable to load root certificates: unable to parse bytes as PEM block".into());
    }
    Ok(all)
}

fn store(certificates: &[CertificateDer<'static>]) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.iter().cloned());
    roots
}

#[derive(Debug)]
struct Verifier {
    web: Arc<WebPkiServerVerifier>,
    given: Vec<CertificateDer<'static>>,
}

impl Verifier {
    /// A certificate of the bundle, in its time and for the name.
    fn is_given(&self, own: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> bool {
        let known = self.given.iter().any(|given| given.as_ref() == own.as_ref());
        let in_time = || {
            let parsed = x509_parser::parse_x509_certificate(own).ok();
            let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
            parsed.is_some_and(|(_, certificate)| {
                let validity = certificate.validity();
                (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now)
            })
        };
        let named = || {
            let parsed = ParsedCertificate::try_from(own);
            parsed.and_then(|parsed| verify_server_name(&parsed, name)).is_ok()
        };
        known && in_time() && named()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.web.verify_server_cert(own, others, name, ocsp, now);
        verified.or_else(|error| match self.is_given(own, name, now) {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(error),
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.web.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.web.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.web.supported_verify_schemes()
    }
}
