//! Connections for the pool: TCP to wherever the webhook is now, then TLS.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::Uri;
use outgoing::Stream;
use rustls::CertificateError;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::Services;
use crate::target::{Place, Target};

/// Opens connections to one webhook.
#[derive(Clone)]
pub(crate) struct Connector {
    shared: Arc<Shared>,
}

struct Shared {
    target: Target,
    name: ServerName<'static>,
    tls: tokio_rustls::TlsConnector,
    services: Arc<dyn Services>,
}

impl Connector {
    pub(crate) fn new(
        target: Target,
        tls: Arc<rustls::ClientConfig>,
        services: Arc<dyn Services>,
    ) -> Result<Connector, String> {
        let name = ServerName::try_from(target.server_name.clone());
        let name = name.map_err(|e| format!("{:?}: {e}", target.server_name))?;
        Ok(Connector { shared: Arc::new(Shared { target, name, tls: tls.into(), services }) })
    }
}

/// Why no connection came to be, in the words that the client is told.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unreachable(String);

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = Unreachable;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, Unreachable>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unreachable>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let shared = self.shared.clone();
        Box::pin(async move { shared.open().await.map_err(Unreachable) })
    }
}

impl Shared {
    async fn open(&self) -> Result<Stream, String> {
        let tcp = match &self.target.place {
            Place::Host { port } => dial_host(&self.target.host, *port).await?,
            Place::Service { namespace, name, port } => {
                self.services.connect((namespace, name), *port).await?
            }
        };
        outgoing::configure(&tcp);
        Stream::over(tcp, &self.tls, self.name.clone()).await.map_err(|e| tls_error(&e))
    }
}

/// A connection to a host as this process sees it; the error is that of Go's dialer.
pub async fn dial_host(host: &str, port: u16) -> Result<TcpStream, String> {
    let shown =
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let dialed = outgoing::connect(host, port).await;
    dialed.map_err(|e| format!("dial tcp {shown}: {}", go_error(&e)))
}

/// An error of connecting as Go tells it.
pub fn go_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".into(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".into(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".into(),
        io::ErrorKind::TimedOut => "i/o timeout".into(),
        _ => error.to_string(),
    }
}

fn tls_error(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(fault)) = inner else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => "EOF".into(),
            _ => error.to_string(),
        };
    };
    let why = match fault {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "x509: certificate signed by unknown authority".into()
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            "x509: certificate has expired or is not yet valid".into()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            wrong_name(&expected.to_str(), presented)
        }
        other => format!("x509: {other}"),
    };
    format!("tls: failed to verify certificate: {why}")
}

fn wrong_name(expected: &str, presented: &[String]) -> String {
    // Each is written as the debug form of what it is: `DnsName("a.b.svc")`.
    let plain = |name: &String| {
        let quoted = name.split_once("(\"").and_then(|(_, rest)| rest.split_once('"'));
        quoted.map_or_else(|| name.clone(), |(text, _)| text.to_owned())
    };
    let names: Vec<String> = presented.iter().map(plain).collect();
    format!("x509: certificate is valid for {}, not {expected}", names.join(", "))
}

/// The innermost reason of a failed request.
pub(crate) fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    match deepest.downcast_ref::<io::Error>() {
        Some(broken) if broken.kind() == io::ErrorKind::UnexpectedEof => "EOF".into(),
        Some(broken) if broken.kind() == io::ErrorKind::ConnectionReset => {
            "read: connection reset by peer".into()
        }
        _ => deepest.to_string(),
    }
}
