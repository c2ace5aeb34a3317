//! The listener: TLS with optional client certificates, HTTP/1.1 and HTTP/2, upgrades.

use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::server::Server;

/// Most a client may have open at once on one HTTP/2 connection (the original's default).
const STREAMS_MAX: u32 = 250;
/// Longest a client may take to greet, or to send a request's head; also how long an HTTP/1.1
/// connection may rest between two requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(90);
/// How often, and for how long, a silent HTTP/2 client is asked whether it is still there: watches
/// of clients that vanished without a word would stay for ever.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// The server's certificate, and who may have signed clients'.
#[derive(Debug, Clone)]
pub struct TlsSetup {
    pub cert_pem: String,
    pub key_pem: String,
    pub client_ca_pem: String,
}

/// TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("read a PEM: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("client CA: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

impl TlsSetup {
    fn acceptor(&self) -> Result<TlsAcceptor, TlsError> {
        let mut roots = rustls::RootCertStore::empty();
        for cert in CertificateDer::pem_slice_iter(self.client_ca_pem.as_bytes()) {
            roots.add(cert?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .allow_unauthenticated()
                .build()?;
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(self.cert_pem.as_bytes()).collect();
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain?, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// A server that is listening; run it to serve.
pub struct Listening {
    server: Server,
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl std::fmt::Debug for Listening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listening")
    }
}

/// Puts the server behind TLS on a bound socket.
pub fn listen(
    server: Server,
    listener: TcpListener,
    tls: &TlsSetup,
) -> Result<Listening, TlsError> {
    Ok(Listening { server, listener, acceptor: tls.acceptor()? })
}

impl Listening {
    /// Serves until the server drains, then returns when the last connection has ended. Dropping the
    /// future ends everything at once.
    pub async fn run(self) {
        let Listening { server, listener, acceptor } = self;
        let closing = server.inner.closing.clone();
        let mut connections = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                () = closing.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok((tcp, _)) => {
                        connections.spawn(serve(server.clone(), acceptor.clone(), tcp));
                    }
                    // Out of descriptors, usually: let some close before trying again.
                    Err(error) => {
                        tracing::warn!(%error, "accept failed");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }
}

/// A connection's TLS, and who is on its other side.
async fn greet(
    acceptor: TlsAcceptor,
    tcp: TcpStream,
) -> std::io::Result<(TlsStream<TcpStream>, Option<Arc<[u8]>>)> {
    // Nagle's delay would be added to every small answer.
    drop(tcp.set_nodelay(true));
    let stream = tokio::time::timeout(HEADER_TIMEOUT, acceptor.accept(tcp)).await??;
    let peer = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let certificate = peer.map(|certificate| certificate.as_ref().into());
    Ok((stream, certificate))
}

async fn serve(server: Server, acceptor: TlsAcceptor, tcp: TcpStream) {
    let closing = server.inner.closing.clone();
    let greeted = tokio::select! {
        greeted = greet(acceptor, tcp) => greeted,
        () = closing.cancelled() => return,
    };
    let (stream, certificate) = match greeted {
        Ok(greeted) => greeted,
        Err(error) => return tracing::debug!(%error, "TLS handshake failed"),
    };
    let service = service_fn(move |request| {
        let (server, certificate) = (server.clone(), certificate.clone());
        async move {
            Ok::<_, std::convert::Infallible>(server.serve(request, certificate.as_deref()).await)
        }
    });
    let builder = builder();
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}
