//! TLS for the HTTPS transport: the cluster's CA, and a client certificate or a token.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tower_service::Service;

/// Where the server is and how to prove who we are.
#[derive(Debug, Clone)]
pub struct HttpsConfig {
    /// `https://host:port`.
    pub server: String,
    /// PEM of the authorities that may have signed the server's certificate.
    pub ca_pem: Vec<u8>,
    pub credentials: Credentials,
}

/// Who we are.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// PEM of a certificate (chain) and its key.
    Certificate {
        cert_pem: Vec<u8>,
        key_pem: Vec<u8>,
    },
    Token(String),
}

impl Credentials {
    pub(super) fn bearer(&self) -> Option<String> {
        match self {
            Credentials::Token(token) => Some(token.clone()),
            Credentials::Certificate { .. } => None,
        }
    }
}

fn pem_error(e: rustls::pki_types::pem::Error) -> rustls::Error {
    rustls::Error::General(format!("read PEM: {e}"))
}

pub(super) fn connector(
    config: &HttpsConfig,
) -> Result<TlsConnector<HttpConnector>, rustls::Error> {
    let mut roots = rustls::RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(&config.ca_pem) {
        roots.add(cert.map_err(pem_error)?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let tls = match &config.credentials {
        Credentials::Token(_) => builder.with_no_client_auth(),
        Credentials::Certificate { cert_pem, key_pem } => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert_pem).collect();
            let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(pem_error)?;
            builder.with_client_auth_cert(chain.map_err(pem_error)?, key)?
        }
    };
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    Ok(TlsConnector { http, tls: Arc::new(tls) })
}

/// Connects, then speaks TLS. HTTP/1.1: watches each take a connection, which loopback affords.
#[derive(Clone)]
pub(super) struct TlsConnector<C> {
    http: C,
    tls: Arc<rustls::ClientConfig>,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Service<Uri> for TlsConnector<HttpConnector> {
    type Response = TlsStream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<TlsStream, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Service::poll_ready(&mut self.http, cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let host = uri.host().unwrap_or("").trim_matches(['[', ']']).to_owned();
        let connecting = Service::call(&mut self.http, uri);
        let tls = tokio_rustls::TlsConnector::from(self.tls.clone());
        Box::pin(async move {
            let tcp = connecting.await?.into_inner();
            let stream = tls.connect(ServerName::try_from(host)?, tcp).await?;
            Ok(TlsStream(TokioIo::new(stream)))
        })
    }
}

/// A TLS connection as hyper wants it.
pub(super) struct TlsStream(TokioIo<tokio_rustls::client::TlsStream<TcpStream>>);

impl Connection for TlsStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl hyper::rt::Write for TlsStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
