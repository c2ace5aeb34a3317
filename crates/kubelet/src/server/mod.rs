//! The node API over HTTPS: pods, logs, exec, attach, port-forward.

mod auth;
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
    let cancelled = tasks.cancelled();
    tokio::pin!(cancelled);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut cancelled => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let work = connection(shared.clone(), tasks.child(), acceptor.clone(), stream);
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

async fn connection(shared: Arc<Shared>, tasks: Tasks, acceptor: TlsAcceptor, stream: TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "node API: no TCP_NODELAY");
    }
    let stream = match acceptor.accept(stream).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, "node API: TLS handshake failed");
            return;
        }
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let user: Option<NodeUser> = certificates.and_then(|c| c.first()).and_then(|c| auth::user(c));
    let service = service_fn(move |request| {
        let (shared, tasks, user) = (shared.clone(), tasks.clone(), user.clone());
        async move { Ok::<_, Infallible>(route::handle(shared, tasks, user, request).await) }
    });
    // HTTP/1.1 only: exec and its like need its upgrades.
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "node API connection ended");
    }
}
