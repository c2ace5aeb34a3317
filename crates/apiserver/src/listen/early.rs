//! Answers that are ready before their request's body was read (a refusal, mostly).
//!
//! HTTP/1.1 must get past that body before the next request. A short rest is read and dropped; else
//! the answer says that the connection closes, and the socket is read for a moment longer, so that
//! the client gets the answer instead of a reset (as Go's server does).

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::net::TcpStream;

/// Rest of a body that is read to keep a connection (Go's `maxPostHandlerReadBytes`).
const REST_MAX: usize = 256 * 1024;
/// Longest wait for that rest, and for what a client still sends after the end.
const REST_WAIT: Duration = Duration::from_millis(500);

/// A body that comes back when nobody reads it to its end.
pub(super) struct Returned {
    body: Option<Incoming>,
    place: Place,
}

type Place = Arc<Mutex<Option<Incoming>>>;

/// Takes the rest of a request's body, once its answer is there.
pub(super) struct Rest {
    place: Place,
    /// The client sends its body only when it is told to.
    waits: bool,
}

pub(super) fn split(request: Request<Incoming>) -> (Request<Returned>, Rest) {
    let place = Place::default();
    let waits = request.headers().contains_key(header::EXPECT);
    let rest = Rest { place: place.clone(), waits };
    (request.map(|body| Returned { body: Some(body), place }), rest)
}

impl Drop for Returned {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) {
            *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }
}

impl Body for Returned {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = self.body.as_mut() else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Rest {
    /// Reads what is left of the body, or marks the answer as the connection's last. Returns whether
    /// it is the last.
    pub(super) async fn settle<B>(self, response: &mut Response<B>) -> bool {
        let left = self.place.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(body) = left else { return false };
        if !self.waits && tokio::time::timeout(REST_WAIT, drained(body)).await.unwrap_or(false) {
            return false;
        }
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        true
    }
}

async fn drained(mut body: Incoming) -> bool {
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > REST_MAX {
            return false;
        }
    }
    true
}

/// Reads and drops what a client still sends, until it closes: closing a socket with unread data
/// resets the connection, and the answer on its way is lost.
pub(super) async fn linger(stream: &TcpStream) {
    let mut buffer = [0; 4096];
    let read = async {
        while stream.readable().await.is_ok() {
            match stream.try_read(&mut buffer) {
                Ok(0) => return,
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    drop(tokio::time::timeout(REST_WAIT, read).await);
}
