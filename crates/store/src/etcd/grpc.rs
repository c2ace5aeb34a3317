//! gRPC as far as etcd needs it: one call with one answer, and one call with a stream of answers,
//! over one HTTP/2 connection that is made again when it breaks, to the next endpoint.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::StreamExt;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use prost::Message;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

use super::endpoint::Endpoint;
use super::tasks::Tasks;

/// An answer that takes longer counts as lost.
const CALL: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(3);
/// A peer that answers no ping for this long is gone, whatever its connection says.
const PING: Duration = Duration::from_secs(10);
const PONG: Duration = Duration::from_secs(5);
/// Longest message taken: a page of the largest objects, with room.
const MESSAGE_MAX: usize = 256 << 20;
/// Length of the compression flag and the length in front of a message.
const PREFIX: usize = 5;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Why a call has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum CallError {
    /// It did not get as far as etcd.
    #[error("etcd cannot be reached: {0}")]
    Unreachable(String),
    /// It may have been carried out.
    #[error("the connection to etcd was lost: {0}")]
    Lost(String),
    /// etcd's own words, with gRPC's code.
    #[error("{message}")]
    Refused { code: u32, message: String },
}

fn lost(error: impl std::fmt::Display) -> CallError {
    CallError::Lost(error.to_string())
}

/// Calls to one of several endpoints.
pub(super) struct Channel {
    endpoints: Vec<Endpoint>,
    tls: Option<Arc<rustls::ClientConfig>>,
    /// Which endpoint is tried next.
    turn: AtomicUsize,
    connection: Mutex<Option<Connection>>,
}

/// One connection, and the tasks that move its bytes: they end with it, and what it carried with
/// them.
struct Connection {
    sender: SendRequest<Body>,
    _tasks: Tasks,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Channel({})", self.names())
    }
}

impl Channel {
    pub(super) fn new(endpoints: Vec<Endpoint>, tls: Option<rustls::ClientConfig>) -> Channel {
        let tls = tls.map(Arc::new);
        Channel { endpoints, tls, turn: AtomicUsize::new(0), connection: Mutex::new(None) }
    }

    pub(super) fn names(&self) -> String {
        let names: Vec<&str> = self.endpoints.iter().map(|e| e.url.as_str()).collect();
        names.join(",")
    }

    /// Ends the connection, and whatever waits for an answer on it.
    pub(super) async fn close(&self) {
        self.connection.lock().await.take();
    }

    /// One message out, one back.
    pub(super) async fn call<Q: Message, A: Message + Default>(
        &self,
        path: &'static str,
        question: &Q,
    ) -> Result<A, CallError> {
        let body = futures::stream::iter([Ok(Frame::data(framed(question)))]);
        let answer = async {
            let response = self.send(path, StreamBody::new(body).boxed_unsync()).await?;
            let mut answers = Answers::of(response)?;
            answers.next().await?.ok_or_else(|| lost("no answer came"))
        };
        match tokio::time::timeout(CALL, answer).await {
            Ok(answer) => answer,
            Err(_) => {
                // The next call makes a new connection, perhaps to another member.
                self.close().await;
                Err(lost(format!("no answer within {} s", CALL.as_secs())))
            }
        }
    }

    /// One message out, many back; the question stays open until the answers are dropped.
    pub(super) async fn stream<Q: Message, A: Message + Default>(
        &self,
        path: &'static str,
        question: &Q,
    ) -> Result<Answers<A>, CallError> {
        let first = futures::stream::iter([Ok(Frame::data(framed(question)))]);
        let body = first.chain(futures::stream::pending());
        let send = self.send(path, StreamBody::new(body).boxed_unsync());
        let response = tokio::time::timeout(CALL, send).await;
        Answers::of(response.map_err(|_| lost("no answer to a watch"))??)
    }

    async fn send(&self, path: &str, body: Body) -> Result<Response<Incoming>, CallError> {
        let mut connection = self.connection().await?;
        let request = Request::builder()
            .method("POST")
            .uri(format!("{}{path}", self.endpoints[0].url))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            // A member cut off from its leader shall say so instead of serving old state.
            .header("hasleader", "true")
            .body(body)
            .map_err(|e| CallError::Unreachable(e.to_string()))?;
        let sent = connection.send_request(request).await;
        if sent.is_err() {
            self.close().await;
        }
        sent.map_err(|e| match e.is_canceled() {
            // The connection had ended before this was put on it.
            true => CallError::Unreachable(e.to_string()),
            false => lost(e),
        })
    }

    async fn connection(&self) -> Result<SendRequest<Body>, CallError> {
        let mut connection = self.connection.lock().await;
        if let Some(open) = connection.as_ref().filter(|c| !c.sender.is_closed()) {
            return Ok(open.sender.clone());
        }
        let mut failures = Vec::new();
        for _ in &self.endpoints {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let endpoint = &self.endpoints[turn % self.endpoints.len()];
            match tokio::time::timeout(CONNECT, self.connect(endpoint)).await {
                Ok(Ok(made)) => return Ok(connection.insert(made).sender.clone()),
                Ok(Err(why)) => failures.push(format!("{}: {why}", endpoint.url)),
                Err(_) => failures.push(format!("{}: no answer", endpoint.url)),
            }
        }
        Err(CallError::Unreachable(failures.join("; ")))
    }

    async fn connect(&self, endpoint: &Endpoint) -> Result<Connection, String> {
        let stream = TcpStream::connect(endpoint.address().await?).await;
        let stream = stream.map_err(|e| e.to_string())?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        match self.tls.as_ref().filter(|_| endpoint.secure) {
            None => handshake(stream).await,
            Some(tls) => {
                let name = endpoint.host.clone().try_into().map_err(|_| "not a name")?;
                let stream = TlsConnector::from(tls.clone()).connect(name, stream).await;
                handshake(stream.map_err(|e| e.to_string())?).await
            }
        }
    }
}

async fn handshake<S>(stream: S) -> Result<Connection, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let tasks = Tasks::default();
    let (sender, connection) = http2::Builder::new(tasks.spawner("bodies of calls to etcd"))
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(16 << 20)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| e.to_string())?;
    tasks.spawn("connection to etcd", async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to etcd ended");
        }
    });
    Ok(Connection { sender, _tasks: tasks })
}

fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(PREFIX + length);
    out.put_u8(0);
    out.put_u32(length as u32);
    message.encode_raw(&mut out);
    out.freeze()
}

/// Messages of one call, as they arrive.
pub(super) struct Answers<A> {
    body: Pin<Box<Incoming>>,
    buffer: BytesMut,
    /// gRPC's verdict, from the head when there is no body.
    status: Option<(u32, String)>,
    kind: std::marker::PhantomData<fn() -> A>,
}

impl<A: Message + Default> Answers<A> {
    fn of(response: Response<Incoming>) -> Result<Answers<A>, CallError> {
        if response.status() != http::StatusCode::OK {
            let code = response.status();
            return Err(CallError::Unreachable(format!("it is no etcd: it answers HTTP {code}")));
        }
        let status = verdict(response.headers());
        let body = Box::pin(response.into_body());
        Ok(Answers { body, buffer: BytesMut::new(), status, kind: std::marker::PhantomData })
    }

    /// The next message; absent at the end of a call that went well.
    pub(super) async fn next(&mut self) -> Result<Option<A>, CallError> {
        loop {
            if let Some(message) = self.buffered()? {
                return Ok(Some(message));
            }
            match self.body.frame().await {
                None => return self.end(),
                Some(Err(error)) => return Err(lost(error)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(frame) => {
                        self.status = frame.trailers_ref().and_then(verdict).or(self.status.take());
                    }
                },
            }
        }
    }

    fn buffered(&mut self) -> Result<Option<A>, CallError> {
        let Some(length) = self.buffer.get(1..PREFIX).and_then(|b| b.first_chunk()) else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > MESSAGE_MAX {
            return Err(lost(format!("a message of {length} bytes is too long")));
        }
        if self.buffer.len() < PREFIX + length {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        let message = self.buffer.split_to(length).freeze();
        A::decode(message).map(Some).map_err(lost)
    }

    fn end(&mut self) -> Result<Option<A>, CallError> {
        match self.status.take() {
            Some((0, _)) => Ok(None),
            Some((code, message)) => Err(CallError::Refused { code, message }),
            None => Err(lost("the answer broke off")),
        }
    }
}

fn verdict(headers: &http::HeaderMap) -> Option<(u32, String)> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
    let code = text("grpc-status")?.parse().ok()?;
    Some((code, text("grpc-message").unwrap_or("").to_owned()))
}
