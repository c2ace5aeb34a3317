//! A gRPC server: methods by their paths, over any stream of bytes.
//!
//! A handler runs until it has answered, its client's deadline (`grpc-timeout`) passes, or its client goes:
//! then it is dropped at the point where it waits. Work that must not stop halfway runs in a task of its own.

mod answer;
mod question;
mod seats;
mod unix;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::connection::Body;
use crate::{Code, Tasks};

use seats::Seat;
pub use unix::{bind, listen};

/// Calls that one connection may have open at once.
const CALLS_MAX: u32 = 256;
/// Bytes of a call's headers.
const HEADERS_MAX: u32 = 16 << 10;
/// A client that says nothing about its deadline has this one for calls with one answer.
const DEADLINE: Duration = Duration::from_secs(10 * 60);

/// Why a call is refused: what the client gets as its error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rpc error: code = {} desc = {message}", Code::name(*code as u32))]
pub struct Status {
    pub code: Code,
    pub message: String,
}

impl Status {
    pub fn new(code: Code, message: impl Into<String>) -> Status {
        Status { code, message: message.into() }
    }
}

type Handled = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
type Handler = Box<dyn Fn(Request<Incoming>, usize) -> Handled + Send + Sync>;

/// What a server can be asked, by path (`/package.Service/Method`).
pub struct Methods {
    by_path: BTreeMap<&'static str, Handler>,
    message_max: usize,
}

impl std::fmt::Debug for Methods {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.by_path.keys()).finish()
    }
}

impl Methods {
    /// None yet. Questions are at most `message_max` bytes long.
    pub fn new(message_max: usize) -> Methods {
        Methods { by_path: BTreeMap::new(), message_max }
    }

    /// Adds a method with one answer.
    pub fn unary<Q, A, F, R>(mut self, path: &'static str, handler: F) -> Methods
    where
        Q: Message + Default,
        A: Message + 'static,
        F: Fn(Q) -> R + Send + Sync + 'static,
        R: Future<Output = Result<A, Status>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let whole = move |request: Request<Incoming>, max| -> Handled {
            let handler = handler.clone();
            Box::pin(async move {
                let until = question::deadline(request.headers()).unwrap_or(DEADLINE);
                let work = async { handler(question::read(request, max).await?).await };
                let late = || Status::new(Code::DeadlineExceeded, "context deadline exceeded");
                let done = tokio::time::timeout(until, work).await;
                answer::one(done.unwrap_or_else(|_| Err(late())))
            })
        };
        self.by_path.insert(path, Box::new(whole));
        self
    }

    /// Adds a method with a stream of answers, which ends well when the stream ends.
    pub fn streaming<Q, A, F, R, S>(mut self, path: &'static str, handler: F) -> Methods
    where
        Q: Message + Default,
        A: Message + 'static,
        F: Fn(Q) -> R + Send + Sync + 'static,
        R: Future<Output = Result<S, Status>> + Send + 'static,
        S: Stream<Item = Result<A, Status>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let whole = move |request: Request<Incoming>, max| -> Handled {
            let handler = handler.clone();
            Box::pin(async move {
                let until = question::deadline(request.headers());
                let work = async { handler(question::read(request, max).await?).await };
                match work.await {
                    Ok(answers) => answer::many(answers.boxed(), until),
                    Err(status) => answer::refused(&status),
                }
            })
        };
        self.by_path.insert(path, Box::new(whole));
        self
    }

    /// Serves one connection until it ends; its calls end with it.
    pub async fn serve<S>(self: Arc<Self>, stream: S) -> Result<(), hyper::Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.serve_at(stream, Seat::alone()).await
    }

    /// As [`Methods::serve`]; the connection ends, too, when its seat is wanted and no call is open.
    async fn serve_at<S>(self: Arc<Self>, stream: S, seat: Arc<Seat>) -> Result<(), hyper::Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let tasks = Tasks::default();
        let mut builder = http2::Builder::new(tasks.spawner("gRPC call"));
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(CALLS_MAX)
            .max_header_list_size(HEADERS_MAX);
        let (methods, at) = (self.clone(), seat.clone());
        let service = hyper::service::service_fn(move |request| {
            let (methods, call) = (methods.clone(), at.call());
            async move {
                let answer = methods.answer(request).await;
                // The call is open until its answer is written, or dropped.
                let until_read = |body: Body| {
                    let kept = move |frame| {
                        let _open = &call;
                        frame
                    };
                    body.map_frame(kept).boxed_unsync()
                };
                Ok::<_, Infallible>(answer.map(until_read))
            }
        });
        let mut served = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            ended = served.as_mut() => return ended,
            () = seat.leaves() => served.as_mut().graceful_shutdown(),
        }
        served.await
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        if let Some(refused) = question::wrong_protocol(&request) {
            return refused;
        }
        match self.by_path.get(request.uri().path()) {
            Some(handler) => handler(request, self.message_max).await,
            None => answer::refused(&self.unknown(request.uri().path())),
        }
    }

    /// As grpc-go says it.
    fn unknown(&self, path: &str) -> Status {
        let path = path.trim_start_matches('/');
        let message = match path.rsplit_once('/') {
            None => format!("malformed method name: {path:?}"),
            Some((service, method)) => {
                let mut known = self.by_path.keys();
                match known.any(|known| known.starts_with(&format!("/{service}/"))) {
                    true => format!("unknown method {method} for service {service}"),
                    false => format!("unknown service {service}"),
                }
            }
        };
        Status::new(Code::Unimplemented, message)
    }
}
