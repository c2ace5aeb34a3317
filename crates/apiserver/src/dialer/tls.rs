//! TLS on the way out: kubelets see the API server's certificate and are checked against their
//! authority; pods and services see none and are not checked, since nothing says whose certificate
//! they should have.

use std::sync::{Arc, LazyLock};

pub use outgoing::Identity;
use outgoing::Trust;
use rustls::{ClientConfig, Error, RootCertStore};

/// How kubelets are met.
#[derive(Debug, Clone)]
pub struct KubeletTls {
    /// As configured: against the kubelets' authority, when there is one.
    pub(crate) usual: Arc<ClientConfig>,
    /// Without a look at the kubelet's certificate, for who asks so.
    pub(crate) unverified: Arc<ClientConfig>,
}

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
pub(crate) fn anonymous() -> Arc<ClientConfig> {
    static CONFIG: LazyLock<Arc<ClientConfig>> =
        LazyLock::new(|| Arc::new(config(None, None).expect("ring has the usual protocols")));
    CONFIG.clone()
}

fn config(
    identity: Option<Identity>,
    authorities: Option<RootCertStore>,
) -> Result<ClientConfig, Error> {
    let trust = authorities.map_or(Trust::Anybody, Trust::Authorities);
    outgoing::client_config(trust, identity)
}
