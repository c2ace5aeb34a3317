//! Pools to one server, so that no request waits for streams that others hold.
//!
//! hyper's pool keeps one HTTP/2 connection a server. A request beyond the server's limit of concurrent
//! streams waits there until another ends, and a watch does not end: with enough watches, nothing would get
//! through any more. Go's transport opens another connection then, and so do these lanes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// Requests on one connection at a time: the limit that HTTP/2 recommends servers to allow at least
/// (RFC 9113 §6.5.2).
const STREAMS_MAX: usize = 100;

/// A place on a lane, until the response is read or dropped.
pub(super) type Place = Arc<()>;

#[derive(Debug)]
struct Lane<P> {
    pool: P,
    /// Its clones are the places that are taken.
    places: Arc<()>,
}

/// The lanes of one certificate.
#[derive(Debug)]
pub(super) struct Lanes<P>(Vec<Lane<P>>);

impl<P: Clone> Lanes<P> {
    pub(super) fn new() -> Lanes<P> {
        Lanes(Vec::new())
    }

    /// A place on the first lane that has one; `open` makes another lane.
    pub(super) fn place<E>(
        &mut self,
        open: impl FnOnce() -> Result<P, E>,
    ) -> Result<(P, Place), E> {
        let has_room = |lane: &&Lane<P>| Arc::strong_count(&lane.places) <= STREAMS_MAX;
        if let Some(lane) = self.0.iter().find(has_room) {
            return Ok((lane.pool.clone(), lane.places.clone()));
        }
        let lane = Lane { pool: open()?, places: Arc::new(()) };
        let taken = (lane.pool.clone(), lane.places.clone());
        self.0.push(lane);
        Ok(taken)
    }
}

/// The body of a response, which keeps its place.
#[derive(Debug)]
pub(super) struct Held {
    body: Incoming,
    _place: Place,
}

impl Held {
    pub(super) fn new(body: Incoming, place: Place) -> Held {
        Held { body, _place: place }
    }
}

impl Body for Held {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
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
    use super::*;

    #[test]
    fn a_full_lane_is_left_for_another_until_a_place_is_free() {
        let (mut lanes, opened) = (Lanes::new(), std::cell::Cell::new(0));
        let mut place = || {
            let open = || {
                opened.set(opened.get() + 1);
                Ok::<_, ()>(opened.get())
            };
            lanes.place(open).expect("opened")
        };
        let mut held: Vec<(i32, Place)> = (0..STREAMS_MAX).map(|_| place()).collect();
        assert!(held.iter().all(|(lane, _)| *lane == 1));
        assert_eq!(place().0, 2);
        held.pop();
        let again = place();
        assert_eq!((again.0, opened.get()), (1, 2));
    }
}
