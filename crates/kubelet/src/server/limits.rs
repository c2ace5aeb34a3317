//! What one client, and all together, may hold of the node API.
//!
//! Pods reach this port. Until a certificate has said who calls, a connection is worth little: few
//! are kept, and briefly. A connection whose client neither asks, nor finishes asking, nor reads the
//! answer is closed.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::Body;

/// For the TLS handshake: two round trips and a signature; slow machines take a second.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(10);
/// From the first byte of a request's head to its last, and from a connection's begin to its first
/// request: heads fit into a few packets.
const HEAD: Duration = Duration::from_secs(10);
/// Between two requests: what clients' pools of connections use (Go's default).
const IDLE: Duration = Duration::from_secs(90);
/// Without the client taking a byte of what is sent to it.
const STALLED: Duration = Duration::from_secs(120);
/// How often a connection is looked at.
pub(super) const LOOK: Duration = Duration::from_secs(2);

/// Connections without a name: a handful of clients that are just connecting. Each costs some 40 KiB.
const UNKNOWN_MAX: usize = 256;
const UNKNOWN_PER_SOURCE: usize = 32;
/// Connections with a certificate: API servers (one for each log, exec and forwarded port) and
/// those who read metrics.
const KNOWN_MAX: usize = 4096;
const KNOWN_PER_SOURCE: usize = 2048;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_source: HashMap<IpAddr, usize>,
}

impl Counts {
    fn add(&mut self, source: IpAddr, max: usize, per_source: usize) -> bool {
        let own = self.by_source.get(&source).copied().unwrap_or(0);
        if self.all >= max || own >= per_source {
            return false;
        }
        self.all += 1;
        self.by_source.insert(source, own + 1);
        true
    }

    fn remove(&mut self, source: IpAddr) {
        self.all = self.all.saturating_sub(1);
        if let Some(own) = self.by_source.get_mut(&source) {
            *own -= 1;
            if *own == 0 {
                self.by_source.remove(&source);
            }
        }
    }
}

/// Counts connections.
#[derive(Debug, Default)]
pub(super) struct Gate {
    unknown: Mutex<Counts>,
    known: Mutex<Counts>,
}

/// A connection that counts, until it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    gate: Arc<Gate>,
    source: IpAddr,
    known: bool,
}

impl Gate {
    /// `None`: there are too many already.
    pub(super) fn enter(self: &Arc<Gate>, source: IpAddr) -> Option<Permit> {
        let source = source.to_canonical();
        let fits = lock(&self.unknown).add(source, UNKNOWN_MAX, UNKNOWN_PER_SOURCE);
        fits.then(|| Permit { gate: self.clone(), source, known: false })
    }
}

impl Permit {
    /// The client has a certificate of the cluster's.
    pub(super) fn recognised(mut self) -> Option<Permit> {
        if !lock(&self.gate.known).add(self.source, KNOWN_MAX, KNOWN_PER_SOURCE) {
            return None;
        }
        lock(&self.gate.unknown).remove(self.source);
        self.known = true;
        Some(self)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let counts = if self.known { &self.gate.known } else { &self.gate.unknown };
        lock(counts).remove(self.source);
    }
}

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    FirstRequest,
    NextRequest,
    RestOfHead,
    /// A request is worked on, or its answer is being sent.
    Answer,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    since: Instant,
    /// Since when the client takes nothing.
    stalled: Option<Instant>,
}

/// Where a connection is; shared by its stream, its requests and its watch.
#[derive(Debug, Clone)]
pub(super) struct Progress(Arc<Mutex<State>>);

impl Progress {
    pub(super) fn new() -> Progress {
        let state = State { phase: Phase::FirstRequest, since: Instant::now(), stalled: None };
        Progress(Arc::new(Mutex::new(state)))
    }

    fn enter(&self, phase: Phase) {
        let mut state = lock(&self.0);
        state.phase = phase;
        state.since = Instant::now();
    }

    /// A request's head is complete.
    pub(super) fn asked(&self) {
        self.enter(Phase::Answer);
    }

    fn read(&self) {
        let mut state = lock(&self.0);
        // The first request's head has the time since the connection's begin.
        if state.phase == Phase::NextRequest {
            state.phase = Phase::RestOfHead;
            state.since = Instant::now();
        }
    }

    fn wrote(&self, pending: bool) {
        let mut state = lock(&self.0);
        state.stalled = match pending {
            true => state.stalled.or_else(|| Some(Instant::now())),
            false => None,
        };
    }

    /// Why the connection should end.
    fn overdue(&self) -> Option<&'static str> {
        let state = lock(&self.0);
        let (limit, why) = match state.phase {
            Phase::FirstRequest | Phase::RestOfHead => (HEAD, "no complete request came"),
            Phase::NextRequest => (IDLE, "idle"),
            Phase::Answer => match state.stalled {
                Some(since) if since.elapsed() > STALLED => return Some("nothing is read"),
                _ => return None,
            },
        };
        (state.since.elapsed() > limit).then_some(why)
    }

    /// Resolves when the connection should end.
    pub(super) async fn watch(&self) -> &'static str {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Some(why) = self.overdue() {
                return why;
            }
        }
    }
}

/// A stream that tells its progress, and counts for as long as it lives, upgraded or not.
pub(super) struct Watched<S> {
    pub(super) stream: S,
    pub(super) progress: Progress,
    pub(super) _permit: Permit,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.progress.read();
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.progress.wrote(result.is_pending());
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        self.progress.wrote(result.is_pending());
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// An answer's body; when it is gone the connection waits for the next request.
struct Answered {
    body: Body,
    progress: Progress,
}

pub(super) fn answered(body: Body, progress: Progress) -> Body {
    use http_body_util::BodyExt;
    Answered { body, progress }.boxed_unsync()
}

impl Drop for Answered {
    fn drop(&mut self) {
        self.progress.enter(Phase::NextRequest);
    }
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
    use super::*;

    #[test]
    fn one_source_does_not_keep_others_out() {
        let gate = Arc::new(Gate::default());
        let (a, b): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let held: Vec<_> = (0..UNKNOWN_PER_SOURCE).map(|_| gate.enter(a).unwrap()).collect();
        assert!(gate.enter(a).is_none());
        assert!(gate.enter("::ffff:10.0.0.1".parse().unwrap()).is_none(), "the same source");
        let known = gate.enter(b).unwrap().recognised().unwrap();
        drop(held);
        assert!(gate.enter(a).is_some());
        drop(known);
        let (unknown, known) = (lock(&gate.unknown), lock(&gate.known));
        assert_eq!((unknown.all, known.all), (0, 0));
        assert!(unknown.by_source.is_empty() && known.by_source.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn each_phase_has_its_time() {
        let progress = Progress::new();
        let begun = Instant::now();
        assert_eq!(progress.watch().await, "no complete request came");
        assert!(begun.elapsed() <= HEAD + LOOK);
        progress.asked();
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(progress.overdue(), None, "an answer may take its time");
        progress.wrote(true);
        assert_eq!(progress.watch().await, "nothing is read");
        progress.wrote(false);
        progress.enter(Phase::NextRequest);
        tokio::time::advance(IDLE - LOOK).await;
        assert_eq!(progress.overdue(), None);
        progress.read();
        assert_eq!(progress.watch().await, "no complete request came");
    }
}
