//! The listener: TLS with optional client certificates, HTTP/1.1 and HTTP/2, upgrades.

mod clients;
mod early;
mod guarded;
mod live;
mod socket;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::listener::{Gate, Limits, Slot};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;

use crate::filters::audit::Peer;
use crate::server::Server;
use guarded::Guarded;
use live::{Acceptor, Judged};
pub use live::{LiveTls, TlsError, TlsSetup};
use socket::Socket;

/// Most a client may have open at once on one HTTP/2 connection (upstream's default).
const STREAMS_MAX: u32 = 250;
/// Longest an HTTP/1.1 client may take to send a request's head, once it has begun.
const HEADER_TIMEOUT: Duration = Duration::from_secs(90);
/// How often, and for how long, a silent HTTP/2 client is asked whether it is still there: watches
/// of clients that vanished without a word would stay for ever.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// A server that is listening; run it to serve.
pub struct Listening {
    server: Server,
    listener: TcpListener,
    tls: Arc<LiveTls>,
}

impl std::fmt::Debug for Listening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listening")
    }
}

/// Encrypted bytes that wait for the socket: two records. rustls' own limit, twice that, is most of what
/// a connection takes whose client does not read.
const TLS_BUFFER: usize = 32 * 1024;

/// Puts the server behind TLS on a bound socket.
pub fn listen(server: Server, listener: TcpListener, tls: Arc<LiveTls>) -> Listening {
    Listening { server, listener, tls }
}

impl Listening {
    /// Serves until the server drains, then returns when the last connection has ended. Dropping the
    /// future ends everything at once.
    pub async fn run(self) {
        let Listening { server, listener, tls } = self;
        let closing = server.parts.closing.clone();
        let gate = Gate::new(Limits::new(server.parts.limits.connections));
        let mut connections = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                () = closing.cancelled() => break,
                (tcp, peer, slot) = ::listener::accept(&listener, &gate) => {
                    let handshake = gate.limits().handshake;
                    let tcp = (tcp, peer.ip());
                    connections.spawn(serve(server.clone(), tls.clone(), tcp, slot, handshake));
                }
                Some(_) = connections.join_next() => {}
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }
}

type Tls = TlsStream<Socket>;

/// A connection's TLS, and who is at its other side.
async fn greet(acceptor: Acceptor, socket: Socket) -> std::io::Result<(Tls, Judged)> {
    // Nagle's delay would be added to every small answer.
    drop(socket.0.set_nodelay(true));
    let limit = |tls: &mut rustls::ServerConnection| tls.set_buffer_limit(Some(TLS_BUFFER));
    let stream = acceptor.tls.accept_with(socket, limit).await?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let client = Judged::new(chain, &acceptor);
    Ok((stream, client))
}

async fn serve(
    server: Server,
    tls: Arc<LiveTls>,
    (tcp, peer): (TcpStream, IpAddr),
    slot: Slot,
    handshake: Duration,
) {
    let closing = server.parts.closing.clone();
    let socket = Socket(Arc::new(tcp));
    let greeted = tokio::select! {
        greeted = tokio::time::timeout(handshake, greet(tls.acceptor(), socket.clone())) => greeted,
        () = slot.connection().ended() => return,
        () = closing.cancelled() => return,
    };
    let (stream, client) = match greeted.map_err(std::io::Error::from).flatten() {
        Ok(greeted) => greeted,
        Err(error) => return tracing::debug!(%error, "TLS handshake failed"),
    };
    let last = Arc::new(AtomicBool::new(false));
    let service = service_fn({
        let (connection, last) = (slot.connection().clone(), last.clone());
        move |mut request: http::Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            let client = client.now(&tls);
            if let Some(stranger) = &client.stranger {
                request.extensions_mut().insert(stranger.clone());
            }
            if let Some(proxy) = &client.proxy {
                request.extensions_mut().insert(proxy.clone());
            }
            let work = connection.request();
            let (server, last) = (server.clone(), last.clone());
            async move { answer(&server, client.certificate, request, work, &last).await }
        }
    });
    let builder = builder();
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = slot.connection().ended() => return,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
    if last.load(Ordering::Relaxed) {
        early::linger(&socket.0).await;
    }
}

async fn answer(
    server: &Server,
    certificate: Option<Arc<[u8]>>,
    request: http::Request<Incoming>,
    work: ::listener::Request,
    last: &AtomicBool,
) -> Result<http::Response<Guarded>, std::convert::Infallible> {
    // HTTP/2 ends a stream without its connection.
    if request.version() >= http::Version::HTTP_2 {
        return Ok(guarded::guard(server.serve(request, certificate).await, work));
    }
    let (request, rest) = early::split(request);
    let mut response = server.serve(request, certificate).await;
    if response.status() != http::StatusCode::SWITCHING_PROTOCOLS
        && rest.settle(&mut response).await
    {
        last.store(true, Ordering::Relaxed);
    }
    Ok(guarded::guard(response, work))
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
