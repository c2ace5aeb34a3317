//! Calls to one peer, over a connection that is made when it is needed.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures::StreamExt as _;
use http::{Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use prost::Message;
use tokio::sync::Mutex;

use crate::connection::Body;
use crate::frame::framed;
use crate::{Answers, CallError, Connection};

/// Makes connections.
pub trait Dial: Send + Sync {
    /// A new connection; the error says why there is none. Has a deadline of its own.
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<Connection, String>> + Send + '_>>;
}

/// Properties of all calls of a channel.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names the peer in errors, e.g. `etcd`.
    pub peer: &'static str,
    /// `scheme://authority` of the requests.
    pub origin: String,
    /// Headers of every call.
    pub headers: &'static [(&'static str, &'static str)],
    /// Adds headers to a call, of the task that makes it.
    pub decorate: Option<fn(&mut http::HeaderMap)>,
    /// A call without an answer for this long has failed.
    pub deadline: Duration,
    /// Longest message that is read, in bytes.
    pub message_max: usize,
}

/// Calls to a peer.
pub struct Channel<D> {
    dial: D,
    settings: Settings,
    connection: Mutex<Option<Connection>>,
}

impl<D> std::fmt::Debug for Channel<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Channel({})", self.settings.peer)
    }
}

impl<D: Dial> Channel<D> {
    pub fn new(dial: D, settings: Settings) -> Channel<D> {
        Channel { dial, settings, connection: Mutex::new(None) }
    }

    pub fn dialer(&self) -> &D {
        &self.dial
    }

    /// Ends the connection, and whatever waits for an answer on it.
    pub async fn close(&self) {
        self.connection.lock().await.take();
    }

    /// One message out, one back.
    pub async fn call<Q: Message, A: Message + Default>(
        &self,
        path: &'static str,
        question: &Q,
    ) -> Result<A, CallError> {
        self.call_within(path, question, self.settings.deadline).await
    }

    /// As [`Channel::call`], with a deadline of its own.
    pub async fn call_within<Q: Message, A: Message + Default>(
        &self,
        path: &'static str,
        question: &Q,
        deadline: Duration,
    ) -> Result<A, CallError> {
        let body = futures::stream::iter([Ok(Frame::data(framed(question)))]);
        let answer = async {
            let response = self.send(path, StreamBody::new(body).boxed_unsync()).await?;
            let mut answers = self.answers(response)?;
            answers.next().await?.ok_or_else(|| self.lost("no answer came"))
        };
        match tokio::time::timeout(deadline, answer).await {
            Ok(answer) => answer,
            Err(_) => {
                // The next call makes a new connection, perhaps to another peer.
                self.close().await;
                Err(self.late(deadline))
            }
        }
    }

    /// One message out, many back; the question stays open until the answers are dropped.
    pub async fn stream<Q: Message, A: Message + Default>(
        &self,
        path: &'static str,
        question: &Q,
    ) -> Result<Answers<A>, CallError> {
        let first = futures::stream::iter([Ok(Frame::data(framed(question)))]);
        let body = first.chain(futures::stream::pending());
        let send = self.send(path, StreamBody::new(body).boxed_unsync());
        let response = tokio::time::timeout(self.settings.deadline, send).await;
        self.answers(response.map_err(|_| self.late(self.settings.deadline))??)
    }

    fn answers<A: Message + Default>(
        &self,
        response: Response<Incoming>,
    ) -> Result<Answers<A>, CallError> {
        Answers::of(response, self.settings.peer, self.settings.message_max)
    }

    fn lost(&self, error: impl std::fmt::Display) -> CallError {
        CallError::Lost(format!("the connection to {} was lost: {error}", self.settings.peer))
    }

    fn late(&self, deadline: Duration) -> CallError {
        let peer = self.settings.peer;
        CallError::Late(format!("the connection to {peer} was lost: no answer within {deadline:?}"))
    }

    fn unreachable(&self, error: impl std::fmt::Display) -> CallError {
        CallError::Unreachable(format!("{} cannot be reached: {error}", self.settings.peer))
    }

    async fn send(&self, path: &str, body: Body) -> Result<Response<Incoming>, CallError> {
        let mut connection = self.connection().await?;
        let mut request = Request::builder()
            .method("POST")
            .uri(format!("{}{path}", self.settings.origin))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in self.settings.headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(body).map_err(|e| self.unreachable(e))?;
        if let Some(decorate) = self.settings.decorate {
            decorate(request.headers_mut());
        }
        let sent = connection.send_request(request).await;
        if sent.is_err() {
            self.close().await;
        }
        sent.map_err(|e| match e.is_canceled() {
            // The connection had ended before this was put on it.
            true => self.unreachable(e),
            false => self.lost(e),
        })
    }

    async fn connection(&self) -> Result<SendRequest<Body>, CallError> {
        let mut connection = self.connection.lock().await;
        if let Some(open) = connection.as_ref().filter(|c| !c.sender.is_closed()) {
            return Ok(open.sender.clone());
        }
        let made = self.dial.dial().await.map_err(|why| self.unreachable(why))?;
        Ok(connection.insert(made).sender.clone())
    }
}
