//! An answer's body, with everything that is held until it is sent.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use hyper::body::{Frame, SizeHint};
use listener::{Progress, Request};

use crate::respond::{Body, Streaming, Unsent};

pub(super) struct Guarded {
    body: Body,
    /// The connection is at work until the answer is sent.
    _work: Request,
    /// For an answer that is no stream: a client must read it.
    progress: Option<Progress>,
    _unsent: Option<Unsent>,
}

/// Ties an answer to its connection.
pub(super) fn guard(mut response: Response<Body>, work: Request) -> Response<Guarded> {
    let is_stream = response.extensions_mut().remove::<Streaming>().is_some();
    let unsent = response.extensions_mut().remove::<Unsent>();
    let progress = (!is_stream).then(|| work.sending());
    response.map(|body| Guarded { body, _work: work, progress, _unsent: unsent })
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
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
