//! The node API over HTTPS: pods, logs, exec, attach, port-forward.

mod auth;
mod limits;
mod logs;
mod metrics;
mod route;
mod stats;

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use client::Tasks;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use self::limits::{Permit, Progress, Watched};
use crate::config::NodeUser;
use crate::kubelet::Shared;

pub use auth::{TlsError, tls_config};

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
    tls: Arc<rustls::ServerConfig>,
) {
    let acceptor = TlsAcceptor::from(tls);
    let gate = Arc::new(limits::Gate::default());
    let cancelled = tasks.cancelled();
    tokio::pin!(cancelled);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut cancelled => return,
        };
        match accepted {
            Ok((stream, from)) => {
                let Some(permit) = gate.enter(from.ip()) else {
                    tracing::debug!(%from, "node API: too many connections");
                    continue;
                };
                let (tasks_of, acceptor) = (tasks.child(), acceptor.clone());
                let work = connection(shared.clone(), tasks_of, acceptor, stream, permit);
                tasks.spawn("node API connection", work);
            }
            // Out of file descriptors, most likely: others must end first.
            Err(error) => {
                tracing::warn!(%error, "node API connection not accepted");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(
    shared: Arc<Shared>,
    tasks: Tasks,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    permit: Permit,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "node API: no TCP_NODELAY");
    }
    let stream = match tokio::time::timeout(limits::HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "node API: TLS handshake failed"),
        Err(_) => return tracing::debug!("node API: TLS handshake took too long"),
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let user: Option<NodeUser> = certificates.and_then(|c| c.first()).and_then(|c| auth::user(c));
    let permit = match &user {
        Some(_) => permit.recognised(),
        None => Some(permit),
    };
    let Some(permit) = permit else {
        return tracing::debug!(?user, "node API: too many connections");
    };
    let progress = Progress::new();
    let known = user.is_some();
    let told = progress.clone();
    let service = service_fn(move |request| {
        let (shared, tasks, user) = (shared.clone(), tasks.clone(), user.clone());
        let progress = told.clone();
        async move {
            progress.asked();
            let answer = route::handle(shared, tasks, user, request).await;
            Ok::<_, Infallible>(answer.map(|body| limits::answered(body, progress)))
        }
    });
    let stream = Watched { stream, progress: progress.clone(), _permit: permit };
    // HTTP/1.1 only: exec and its like need its upgrades. Who has no name gets one answer.
    let served = hyper::server::conn::http1::Builder::new()
        .keep_alive(known)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::select! {
        served = served => if let Err(error) = served {
            tracing::debug!(%error, "node API connection ended");
        },
        why = progress.watch() => tracing::debug!(why, "node API connection closed"),
    }
}
