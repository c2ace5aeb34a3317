//! Bodies that must keep coming.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum Idle {
    #[error("nothing came for {} seconds", .0.as_secs())]
    Silent(Duration),
    #[error("read the answer")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A body that fails when no frame comes for `limit`.
pub struct ReadIdle<B> {
    body: B,
    limit: Duration,
    due: Pin<Box<Sleep>>,
}

impl<B> ReadIdle<B> {
    pub fn new(body: B, limit: Duration) -> ReadIdle<B> {
        ReadIdle { body, limit, due: Box::pin(tokio::time::sleep(limit)) }
    }
}

impl<B> std::fmt::Debug for ReadIdle<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReadIdle({:?})", self.limit)
    }
}

impl<B> Body for ReadIdle<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    type Data = Bytes;
    type Error = Idle;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Idle>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            let next = Instant::now() + self.limit;
            self.due.as_mut().reset(next);
            return Poll::Ready(frame.map(|frame| frame.map_err(|e| Idle::Broken(Box::new(e)))));
        }
        match self.due.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Some(Err(Idle::Silent(self.limit)))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{BodyExt, Full};

    use super::*;

    /// Says something now and then, then nothing.
    struct Slow(u8, Pin<Box<Sleep>>);

    impl Body for Slow {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if self.0 == 0 || self.1.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.0 -= 1;
            self.1 = Box::pin(tokio::time::sleep(Duration::from_secs(50)));
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_is_an_error_and_a_slow_one_is_not() {
        let begun = Instant::now();
        let slow = Slow(3, Box::pin(tokio::time::sleep(Duration::from_secs(50))));
        let told = ReadIdle::new(slow, Duration::from_secs(60)).collect().await;
        assert!(matches!(told, Err(Idle::Silent(_))));
        assert_eq!(begun.elapsed(), Duration::from_secs(3 * 50 + 60));
        let whole = ReadIdle::new(Full::from("all"), Duration::from_secs(60)).collect().await;
        assert_eq!(whole.expect("it came").to_bytes(), "all");
    }
}
