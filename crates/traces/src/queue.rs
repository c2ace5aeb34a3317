//! Spans that have ended, on their way to a collector.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::message::Span;

/// Spans that wait to be sent (OpenTelemetry's `OTEL_BSP_MAX_QUEUE_SIZE`).
pub(crate) const QUEUE: usize = 2048;

/// Spans since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// A collector has them.
    pub sent: u64,
    /// The queue was full, or no collector took them.
    pub dropped: u64,
}

/// Takes spans that have ended.
#[derive(Debug)]
pub(crate) struct Queue {
    ended: Sender<Span>,
    dropped: AtomicU64,
    sent: AtomicU64,
}

impl Queue {
    /// The spans come out of the receiver.
    pub(crate) fn new() -> (Arc<Queue>, Receiver<Span>) {
        let (ended, receiver) = mpsc::channel(QUEUE);
        let (dropped, sent) = (AtomicU64::default(), AtomicU64::default());
        (Arc::new(Queue { ended, dropped, sent }), receiver)
    }

    /// Drops the span if too many wait.
    pub(crate) fn put(&self, span: Span) {
        if self.ended.try_send(span).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What became of spans that did not wait any longer.
    pub(crate) fn count(&self, sent: u64, dropped: u64) {
        self.sent.fetch_add(sent, Ordering::Relaxed);
        self.dropped.fetch_add(dropped, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> Counts {
        let load = |of: &AtomicU64| of.load(Ordering::Relaxed);
        Counts { sent: load(&self.sent), dropped: load(&self.dropped) }
    }
}
