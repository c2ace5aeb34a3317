//! How the HTTPS transport connects: whom it believes, through which proxy, as whom.

use std::path::PathBuf;
use std::sync::Arc;

use hyper::Uri;
use outgoing::{Connector, Proxy, Trust};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};

use super::auth::Auth;
use super::certificate::general;
use crate::exec_plugin::ExecPlugin;

/// Where the server is and how to prove who we are.
#[derive(Debug, Clone)]
pub struct HttpsConfig {
    /// `https://host:port`.
    pub server: String,
    /// PEM of the authorities that may have signed the server's certificate; empty for the machine's.
    pub ca_pem: Vec<u8>,
    /// The server's certificate is not looked at.
    pub insecure_skip_tls_verify: bool,
    /// The name that the server's certificate must be for; the server's host when absent.
    pub tls_server_name: Option<String>,
    pub proxy_url: Option<String>,
    pub credentials: Credentials,
}

impl HttpsConfig {
    /// A server that is reached directly and verified.
    pub fn new(server: String, ca_pem: Vec<u8>, credentials: Credentials) -> HttpsConfig {
        HttpsConfig {
            server,
            ca_pem,
            insecure_skip_tls_verify: false,
            tls_server_name: None,
            proxy_url: None,
            credentials,
        }
    }
}

/// Who we are.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// Nobody.
    Anonymous,
    /// PEM of a certificate (chain) and its key.
    Certificate {
        cert_pem: Vec<u8>,
        key_pem: Vec<u8>,
    },
    Token(String),
    Basic {
        username: String,
        password: String,
    },
    /// A file that holds a token and is replaced before the token ends.
    TokenFile(PathBuf),
    /// A program that prints a token or a certificate.
    Exec(Box<ExecPlugin>),
}

fn trust(config: &HttpsConfig) -> Result<Trust, rustls::Error> {
    if config.insecure_skip_tls_verify {
        return match config.ca_pem.is_empty() {
            true => Ok(Trust::Anybody),
            false => Err(general("authorities are given together with insecure-skip-tls-verify")),
        };
    }
    if config.ca_pem.is_empty() {
        return Ok(Trust::Authorities(outgoing::machine_roots()));
    }
    let mut roots = rustls::RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(&config.ca_pem) {
        roots.add(cert.map_err(|e| general(format!("read PEM: {e}")))?)?;
    }
    if roots.is_empty() {
        return Err(general("read PEM: no certificate in the authorities"));
    }
    Ok(Trust::Authorities(roots))
}

pub(super) fn connector(config: &HttpsConfig, auth: &Auth) -> Result<Connector, rustls::Error> {
    let mut tls = outgoing::client_config(trust(config)?, None)?;
    tls.client_auth_cert_resolver = auth.certificate();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let uri: Uri = config.server.parse().map_err(general)?;
    let host = uri.host().unwrap_or("").trim_matches(['[', ']']);
    let name = config.tls_server_name.as_deref().unwrap_or(host).to_owned();
    let name = ServerName::try_from(name).map_err(general)?;
    let proxy = config.proxy_url.as_deref().map(Proxy::parse).transpose().map_err(general)?;
    Ok(Connector::new((host, uri.port_u16().unwrap_or(443)), name, Arc::new(tls), proxy))
}
