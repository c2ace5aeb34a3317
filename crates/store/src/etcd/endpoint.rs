//! Where etcd is, and with which keys to talk to it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::transformer::{Form, Transformer};

/// What the flags say.
#[derive(Debug, Clone)]
pub struct EtcdOptions {
    /// URLs, `http` or `https`.
    pub servers: Vec<String>,
    /// CA that signed the servers' certificates.
    pub ca_file: Option<PathBuf>,
    /// This client's certificate and key.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    /// Takes the place of `/registry` in all keys.
    pub prefix: String,
    /// How old what is compacted away is at least.
    pub compaction_interval: Duration,
    /// Encrypts values in etcd and decrypts those that are.
    pub transformer: Option<Arc<dyn Transformer>>,
    pub form: Form,
}

impl EtcdOptions {
    /// What keys in etcd start with, without a slash at its end.
    pub(crate) fn full_prefix(&self) -> String {
        format!("/{}", self.prefix.trim_matches('/'))
    }
}

/// One member's client URL.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    pub(super) url: String,
    pub(super) secure: bool,
    pub(super) host: String,
    port: u16,
}

impl Endpoint {
    pub(super) fn parse(url: &str) -> Result<Endpoint, String> {
        let wrong = || format!("{url:?} is no URL like https://host:2379");
        let uri: http::Uri = url.trim_end_matches('/').parse().map_err(|_| wrong())?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let host = uri.host().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(2379);
        let url = url.trim_end_matches('/').to_owned();
        Ok(Endpoint { url, secure, host, port })
    }

    pub(super) async fn address(&self) -> Result<SocketAddr, String> {
        if let Ok(ip) = self.host.parse::<IpAddr>() {
            return Ok(SocketAddr::new(ip, self.port));
        }
        if self.host == "localhost" {
            return Ok(SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), self.port));
        }
        // Not by the C library: the binary is linked statically.
        let resolver = hickory_resolver::TokioResolver::builder_tokio();
        let resolver = resolver.and_then(|r| r.build()).map_err(|e| e.to_string())?;
        let found = resolver.lookup_ip(self.host.as_str()).await.map_err(|e| e.to_string())?;
        let ip = found.iter().next().ok_or("the name has no address")?;
        Ok(SocketAddr::new(ip, self.port))
    }
}

/// TLS towards etcd; none when no URL asks for it.
pub(super) fn tls(
    options: &EtcdOptions,
    endpoints: &[Endpoint],
) -> Result<Option<rustls::ClientConfig>, String> {
    if !endpoints.iter().any(|e| e.secure) {
        return Ok(None);
    }
    let ca = options.ca_file.as_ref().ok_or("an https URL needs --etcd-cafile")?;
    let fault = |path: &PathBuf, e: String| format!("{}: {e}", path.display());
    let mut roots = rustls::RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(ca).map_err(|e| fault(ca, e.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|e| fault(ca, e.to_string()))?;
        roots.add(certificate).map_err(|e| fault(ca, e.to_string()))?;
    }
    let provider = rustls::crypto::ring::default_provider();
    let builder = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots);
    let mut config = match (&options.cert_file, &options.key_file) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => {
            let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect);
            let chain = chain.map_err(|e| fault(cert, e.to_string()))?;
            let key_der =
                PrivateKeyDer::from_pem_file(key).map_err(|e| fault(key, e.to_string()))?;
            builder.with_client_auth_cert(chain, key_der).map_err(|e| fault(cert, e.to_string()))?
        }
        _ => return Err("--etcd-certfile and --etcd-keyfile go together".into()),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Some(config))
}

#[cfg(test)]
mod tests {
    use super::Endpoint;

    #[test]
    fn urls_are_taken_apart() {
        let parsed = |url| Endpoint::parse(url).map(|e| (e.secure, e.host, e.port));
        assert_eq!(parsed("https://etcd.local:2390/"), Ok((true, "etcd.local".into(), 2390)));
        assert_eq!(parsed("http://[::1]:1"), Ok((false, "::1".into(), 1)));
        assert_eq!(parsed("http://127.0.0.1"), Ok((false, "127.0.0.1".into(), 2379)));
        for wrong in ["", "127.0.0.1:2379", "unix:///x", "ftp://a"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
