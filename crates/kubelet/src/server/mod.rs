//! The node API over HTTPS: pods, logs, exec, attach, port-forward.

mod auth;
mod cadvisor;
mod configz;
mod limits;
mod logs;
mod metrics;
mod node_logs;
mod reviews;
mod route;
mod stats;
mod text;
mod volume_stats;
mod zpages;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use ::listener::{Gate, Slot, Watched};
use bytes::Bytes;
use client::Tasks;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use self::limits::Work;
use crate::config::NodeUser;
use crate::kubelet::Shared;

pub use auth::{TlsError, tls_config};
pub use reviews::ApiReviews;

pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;
pub(crate) type Request = http::Request<hyper::body::Incoming>;
pub(crate) type Response = http::Response<Body>;

pub(crate) fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

pub(crate) fn answer(code: u16, text: impl Into<String>) -> Response {
    let text: String = text.into();
    let mut response = Response::new(full(text));
    *response.status_mut() =
        http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, plain);
    response
}

pub(crate) fn json(value: &serde_json::Value) -> Response {
    let mut response = Response::new(full(value.to_string()));
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}

/// Accepts until cancelled; each connection is a task of its own.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    tasks: &Tasks,
    listener: TcpListener,
    tls: watch::Receiver<Arc<rustls::ServerConfig>>,
) {
    let api = Arc::new(Api { shared, tasks: tasks.clone(), tls, known: limits::known() });
    let unknown = limits::unknown();
    let cancelled = tasks.cancelled();
    tokio::pin!(cancelled);
    loop {
        let (stream, from, slot) = tokio::select! {
            accepted = ::listener::accept(&listener, &unknown) => accepted,
            () = &mut cancelled => return,
        };
        tasks.spawn("node API connection", connection(api.clone(), stream, from, slot));
    }
}

struct Api {
    shared: Arc<Shared>,
    tasks: Tasks,
    /// Certificate and authorities of the day.
    tls: watch::Receiver<Arc<rustls::ServerConfig>>,
    known: Gate,
}

type Greeted = (tokio_rustls::server::TlsStream<TcpStream>, Option<NodeUser>, Slot);

/// The TLS handshake; a client with a certificate gets a place among the known ones.
async fn greet(api: &Api, stream: TcpStream, from: SocketAddr, slot: Slot) -> Option<Greeted> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "node API: no TCP_NODELAY");
    }
    let handshake = api.known.limits().handshake;
    let acceptor = TlsAcceptor::from(api.tls.borrow().clone());
    let greeted = tokio::select! {
        greeted = tokio::time::timeout(handshake, acceptor.accept(stream)) => greeted,
        () = slot.connection().ended() => return None,
    };
    let stream = match greeted {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "node API: TLS handshake failed");
            return None;
        }
        Err(_) => {
            tracing::debug!("node API: TLS handshake took too long");
            return None;
        }
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let user: Option<NodeUser> = certificates.and_then(|c| c.first()).and_then(|c| auth::user(c));
    let slot = match &user {
        Some(_) => limits::recognised(&api.known, from.ip(), slot)?,
        None => slot,
    };
    Some((stream, user, slot))
}

async fn connection(api: Arc<Api>, stream: TcpStream, from: SocketAddr, slot: Slot) {
    // From before the handshake: no change falls in between.
    let mut changes = api.tls.clone();
    changes.mark_unchanged();
    let Some((stream, user, slot)) = greet(&api, stream, from, slot).await else { return };
    let known = user.is_some();
    let connection = slot.connection().clone();
    let service = service_fn(move |mut request: Request| {
        let (shared, tasks, user) = (api.shared.clone(), api.tasks.child(), user.clone());
        let work: Work = Arc::new(connection.request());
        request.extensions_mut().insert(work.clone());
        async move {
            let mut span = span(&shared, &request);
            let answer = route::handle(shared, tasks, user, request);
            let answer = traces::within(span.as_ref(), answer).await;
            if let Some(span) = &mut span {
                span.set("http.response.status_code", i64::from(answer.status().as_u16()));
            }
            Ok::<_, Infallible>(answer.map(|body| limits::answered(body, work)))
        }
    });
    let connection = slot.connection().clone();
    // HTTP/1.1 only: exec and its like need its upgrades. Who has no name gets one answer.
    let served = hyper::server::conn::http1::Builder::new()
        .keep_alive(known)
        .serve_connection(TokioIo::new(Watched::new(stream, slot)), service)
        .with_upgrades();
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = &mut served => ended,
        () = connection.ended() => return tracing::debug!(%from, "node API connection closed"),
        // Other authorities may not know the client any more: it introduces itself again.
        Ok(()) = changes.changed() => {
            served.as_mut().graceful_shutdown();
            tokio::select! {
                ended = served => ended,
                () = connection.ended() => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "node API connection ended");
    }
}

/// The span of a request. Everybody who may ask may have it recorded, as in upstream: the port is for the cluster.
fn span(shared: &Shared, request: &Request) -> Option<traces::Span> {
    let tracer = shared.config.tracer.as_ref()?;
    let sender = traces::SpanContext::of_headers(request.headers());
    let mut span = tracer.serve(request.uri().path(), sender, true);
    span.set("http.request.method", request.method().as_str());
    span.set("url.path", request.uri().path());
    Some(span)
}

/// Answers an upgrade and runs its session in a task; or refuses it.
pub(crate) fn upgraded(
    tasks: &Tasks,
    name: &'static str,
    request: &mut Request,
    accepted: Result<streams::Upgrade, streams::Refusal>,
) -> Response {
    let upgrade = match accepted {
        Ok(upgrade) => upgrade,
        Err(refusal) => return answer(refusal.code, refusal.message),
    };
    let work = request.extensions_mut().remove::<Work>();
    let session = upgrade.session;
    tasks.spawn(name, async move {
        session.await;
        drop(work);
    });
    upgrade.response.map(|()| full(""))
}
