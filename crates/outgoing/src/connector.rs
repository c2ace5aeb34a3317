//! Connections of a pool to one server.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_util::client::legacy::Builder;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::ServerName;
use tower_service::Service;

use crate::proxy::Proxy;
use crate::stream::Stream;

/// A silent HTTP/2 connection is pinged, and given up when no answer comes (client-go's
/// `HTTP2_READ_IDLE_TIMEOUT_SECONDS` and `HTTP2_PING_TIMEOUT_SECONDS`).
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// Idle connections are kept so long (Go's `IdleConnTimeout`).
const POOL_IDLE: Duration = Duration::from_secs(90);

/// A pool whose connections notice a peer that is gone.
pub fn pool_builder() -> Builder {
    let mut builder = hyper_util::client::legacy::Client::builder(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .http2_keep_alive_while_idle(true);
    builder
}

/// Opens TLS connections to one server. Clones are the same one.
#[derive(Clone)]
pub struct Connector {
    shared: Arc<Shared>,
}

struct Shared {
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: tokio_rustls::TlsConnector,
    proxy: Option<Proxy>,
}

impl Connector {
    /// `name` is what the certificate must be for.
    pub fn new(
        (host, port): (&str, u16),
        name: ServerName<'static>,
        tls: Arc<rustls::ClientConfig>,
        proxy: Option<Proxy>,
    ) -> Connector {
        let shared = Shared { host: host.to_owned(), port, name, tls: tls.into(), proxy };
        Connector { shared: Arc::new(shared) }
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connector({}:{})", self.shared.host, self.shared.port)
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let shared = self.shared.clone();
        Box::pin(async move {
            let Shared { host, port, name, tls, proxy } = &*shared;
            match proxy {
                None => {
                    let tcp = crate::connect(host, *port).await?;
                    Stream::over(tcp, tls, name.clone()).await
                }
                Some(proxy) => {
                    Stream::over_any(proxy.tunnel(host, *port).await?, tls, name.clone()).await
                }
            }
        })
    }
}
