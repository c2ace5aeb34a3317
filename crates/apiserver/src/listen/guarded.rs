//! A response body that keeps its reservations until it is sent, and hands its bytes out in pieces.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use hyper::body::{Frame, SizeHint};
use listener::{Progress, Request};

use resources::respond::{Body, Streaming, Unsent};

/// Bytes given to the connection at a time. hyper queues whatever frame it gets, however long, and drops
/// the body after the last one: a long frame would count as sent while it still waits in memory.
const PIECE_MAX: usize = 64 * 1024;

pub(super) struct Guarded {
    body: Body,
    /// The rest of a frame of `body`.
    rest: Bytes,
    /// The connection is busy until the response is sent.
    _work: Request,
    /// For a response that is no stream: the client must read it.
    progress: Option<Progress>,
    _unsent: Option<Unsent>,
}

/// Ties a response to its connection.
pub(super) fn guard(mut response: Response<Body>, work: Request) -> Response<Guarded> {
    let is_stream = response.extensions_mut().remove::<Streaming>().is_some();
    let unsent = response.extensions_mut().remove::<Unsent>();
    let progress = (!is_stream).then(|| work.sending());
    response.map(|body| Guarded {
        body,
        rest: Bytes::new(),
        _work: work,
        progress,
        _unsent: unsent,
    })
}

impl hyper::body::Body for Guarded {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(progress) = &self.progress {
            progress.made();
        }
        if self.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                end => return Poll::Ready(end),
            };
            match frame.into_data() {
                Ok(data) => self.rest = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let length = self.rest.len().min(PIECE_MAX);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, below) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(below.lower() + rest);
        if let Some(upper) = below.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Full};
    use hyper::body::Body as _;

    use super::*;

    #[tokio::test]
    async fn a_long_frame_leaves_in_pieces_and_keeps_its_reservation() {
        let gate = listener::Gate::new(listener::Limits::new(8));
        let slot = gate.admit("127.0.0.1".parse().expect("an address")).expect("a place");
        let room = std::sync::Arc::new(tokio::sync::Semaphore::new(1));
        let held: Unsent = room.acquire_owned().await.expect("open").into();
        let whole = Bytes::from(vec![7u8; 2 * PIECE_MAX + 5]);
        let mut response = Response::new(Full::new(whole.clone()).boxed());
        response.extensions_mut().insert(held.clone());
        let mut body = guard(response, slot.connection().request()).into_body();
        let mut got = Vec::new();
        while let Some(frame) = body.frame().await {
            let left = whole.len() - got.len();
            let data = frame.expect("infallible").into_data().expect("data");
            assert!(data.len() <= PIECE_MAX);
            got.extend_from_slice(&data);
            assert_eq!(body.size_hint().exact(), Some((left - data.len()) as u64));
            assert_eq!(body.is_end_stream(), got.len() == whole.len());
        }
        assert_eq!(got, whole);
        assert_eq!(std::sync::Arc::strong_count(&held), 2);
        drop(body);
        assert_eq!(std::sync::Arc::strong_count(&held), 1);
    }
}
