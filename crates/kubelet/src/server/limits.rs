//! What one client, and all together, may hold of the node API.
//!
//! Pods reach this port. Until a certificate has said who calls, a connection is worth little: few are
//! kept, and briefly. A connection whose client neither asks, nor finishes asking, nor reads the answer
//! is closed. Crate `listener` keeps these limits.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use listener::{Gate, Limits, Slot};

use super::Body;

/// A TLS handshake is two round trips and a signature; slow machines take a second.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// From the first byte of a request's head to its last, and from a connection's begin to its first
/// request: heads fit into a few packets.
const HEAD: Duration = Duration::from_secs(10);
/// Between two requests: what clients' pools of connections use (Go's default).
const IDLE: Duration = Duration::from_secs(90);
/// Without the client taking a byte of what is sent to it.
const STALLED: Duration = Duration::from_secs(120);

/// Connections without a certificate: a handful of clients that are just connecting. Each costs some
/// 40 KiB.
const UNKNOWN_MAX: usize = 256;
const UNKNOWN_PER_SOURCE: usize = 32;
/// Connections with a certificate: API servers (one for each log, exec and forwarded port) and
/// those who read metrics.
const KNOWN_MAX: usize = 4096;
const KNOWN_PER_SOURCE: usize = 2048;

fn limits(total: usize, per_source: usize) -> Limits {
    Limits { total, per_source, handshake: HANDSHAKE, first: HEAD, idle: IDLE, stall: STALLED }
}

/// Connections before their client's certificate was seen.
pub(super) fn unknown() -> Gate {
    Gate::new(limits(UNKNOWN_MAX, UNKNOWN_PER_SOURCE))
}

/// Connections of clients with a certificate of the cluster's.
pub(super) fn known() -> Gate {
    Gate::new(limits(KNOWN_MAX, KNOWN_PER_SOURCE))
}

/// The work of one request; its connection is not idle until the last clone is dropped. It travels in
/// the request's extensions, so that an upgraded session keeps it.
pub(super) type Work = Arc<listener::Request>;

/// A place among the known connections, in exchange for one among the unknown.
pub(super) fn recognised(known: &Gate, from: std::net::IpAddr, unknown: Slot) -> Option<Slot> {
    let slot = known.admit(from)?;
    drop(unknown);
    Some(slot)
}

/// An answer's body; the connection is at work until it was sent.
struct Answered {
    body: Body,
    _work: Work,
}

pub(super) fn answered(body: Body, work: Work) -> Body {
    use http_body_util::BodyExt;
    Answered { body, _work: work }.boxed_unsync()
}

impl hyper::body::Body for Answered {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Pin::new(&mut self.body).poll_frame(cx)
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
    use std::net::IpAddr;

    use tokio::time::Instant;

    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[tokio::test(start_paused = true)]
    async fn one_source_does_not_keep_others_out() {
        let (unknown, known) = (unknown(), known());
        let mut held: Vec<_> =
            (0..=UNKNOWN_PER_SOURCE).map(|_| unknown.admit(A).expect("a place")).collect();
        assert_eq!(unknown.count(), UNKNOWN_PER_SOURCE, "the idlest made room");
        assert!(held.remove(0).connection().ended_now(), "it is told");
        let other = unknown.admit(B).expect("another source has its own places");
        let other = recognised(&known, B, other).expect("a certificate");
        assert_eq!((unknown.count(), known.count()), (UNKNOWN_PER_SOURCE, 1));
        drop(held);
        drop(other);
        assert_eq!((unknown.count(), known.count()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn each_phase_has_its_time() {
        let gate = known();
        let slot = gate.admit(A).expect("a place");
        let connection = slot.connection();
        let begun = Instant::now();
        connection.ended().await;
        assert_eq!(begun.elapsed(), HEAD, "no complete request came");
        let slot = gate.admit(A).expect("a place");
        let work = slot.connection().request();
        let answer = tokio::time::timeout(Duration::from_secs(3600), slot.connection().ended());
        assert!(answer.await.is_err(), "an answer may take its time");
        drop(work);
        let idle = Instant::now();
        slot.connection().ended().await;
        assert_eq!(idle.elapsed(), IDLE);
    }
}
