//! TLS on the way out: kubelets see the API server's certificate and are checked against their
//! authority; pods and services see none and are not checked, since nothing says whose certificate
//! they should have.

use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// How kubelets are met.
#[derive(Debug, Clone)]
pub struct KubeletTls {
    /// As configured: against the kubelets' authority, when there is one.
    pub(super) usual: Arc<ClientConfig>,
    /// Without a look at the kubelet's certificate, for who asks so.
    pub(super) unverified: Arc<ClientConfig>,
}

/// The certificate shown to kubelets, and its key.
pub type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl KubeletTls {
    /// Without authorities any kubelet's certificate is accepted, as upstream does without
    /// `--kubelet-certificate-authority`.
    pub fn new(
        identity: Option<Identity>,
        authorities: Option<RootCertStore>,
    ) -> Result<KubeletTls, Error> {
        let copied = identity.as_ref().map(|(chain, key)| (chain.clone(), key.clone_key()));
        let unverified = Arc::new(config(copied, None)?);
        let usual = match authorities {
            Some(roots) => Arc::new(config(identity, Some(roots))?),
            None => unverified.clone(),
        };
        Ok(KubeletTls { usual, unverified })
    }
}

/// Towards pods and services.
pub(super) fn anonymous() -> Arc<ClientConfig> {
    static CONFIG: LazyLock<Arc<ClientConfig>> =
        LazyLock::new(|| Arc::new(config(None, None).expect("ring has the usual protocols")));
    CONFIG.clone()
}

fn config(
    identity: Option<Identity>,
    authorities: Option<RootCertStore>,
) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let builder = match authorities {
        Some(roots) => builder.with_root_certificates(roots),
        None => {
            let anybody = Arc::new(Anybody(provider));
            builder.dangerous().with_custom_certificate_verifier(anybody)
        }
    };
    match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key),
        None => Ok(builder.with_no_client_auth()),
    }
}

/// Takes whoever holds the key of the certificate that is shown.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
