//! Bodies that are made while they are sent.

use std::convert::Infallible;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio_util::sync::CancellationToken;

use super::Body;

/// A body of chunks.
pub(super) fn chunks(chunks: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    stream(StreamBody::new(chunks.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)))))
}

/// A stream body is `Send` but not `Sync`; hyper's boxed body wants both. Polling takes `&mut`, so
/// sharing never happens.
struct SyncBody<B>(std::sync::Mutex<std::pin::Pin<Box<B>>>);

impl<B> SyncBody<B> {
    fn new(body: B) -> SyncBody<B> {
        SyncBody(std::sync::Mutex::new(Box::pin(body)))
    }
}

impl<B: hyper::body::Body> hyper::body::Body for SyncBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let inner = &mut self.get_mut().0;
        inner.get_mut().unwrap_or_else(|p| p.into_inner()).as_mut().poll_frame(cx)
    }
}

/// A body that holds something until it is sent or given up.
pub fn kept<T: Send + 'static>(body: Body, held: T) -> Body {
    let frames = body.into_data_stream().map(move |data| {
        let _ = &held;
        data.map(Frame::data)
    });
    stream(StreamBody::new(frames))
}

/// The same answer, whose body ends when the token is cancelled.
pub fn until(response: Response<Body>, end: CancellationToken) -> Response<Body> {
    response.map(|body| {
        let frames = body.into_data_stream().map(|data| data.map(Frame::data));
        stream(StreamBody::new(frames.take_until(end.cancelled_owned())))
    })
}

/// A boxed body from any stream of chunks (proxied answers).
pub fn stream<B>(body: B) -> Body
where
    B: hyper::body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    BodyExt::boxed(SyncBody::new(body))
}
