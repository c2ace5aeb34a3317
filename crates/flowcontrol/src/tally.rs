//! The outcome of requests of one FlowSchema on its priority level (apiserver `util/flowcontrol/metrics`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use telemetry::{Histogram, HistogramVec, Registry};
use tokio::time::Instant;

use crate::level::Refusal;

/// Upper bounds of waits, in seconds (upstream's `requestDurationSecondsBuckets`).
const WAITS: [f64; 13] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];

/// The family of waits of one server.
pub(crate) fn waits(registry: &Registry) -> HistogramVec {
    registry.histograms(
        "apiserver_flowcontrol_request_wait_duration_seconds",
        "Length of time a request spent waiting in its queue",
        &["priority_level", "flow_schema", "execute"],
        &WAITS,
    )
}

/// The counts of one schema on one level.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) schema: String,
    pub(crate) level: String,
    waiting: AtomicU64,
    waiting_seats: AtomicU64,
    requests: AtomicU64,
    seats: AtomicU64,
    dispatched: AtomicU64,
    refused: [AtomicU64; 3],
    /// Of those that were sent away or gave up, and of those that were worked on.
    waits: [Histogram; 2],
}

impl Tally {
    pub(crate) fn new(schema: &str, level: &str, waits: &HistogramVec) -> Tally {
        let of = |execute| waits.with_label_values(&[level, schema, execute]);
        Tally {
            schema: schema.to_owned(),
            level: level.to_owned(),
            waiting: AtomicU64::default(),
            waiting_seats: AtomicU64::default(),
            requests: AtomicU64::default(),
            seats: AtomicU64::default(),
            dispatched: AtomicU64::default(),
            refused: Default::default(),
            waits: [of("false"), of("true")],
        }
    }

    /// A request that waits from now on.
    pub(crate) fn arrive(self: &Arc<Tally>, seats: u32) -> Arrival {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.waiting_seats.fetch_add(seats.into(), Ordering::Relaxed);
        Arrival {
            tally: self.clone(),
            seats: seats.into(),
            since: Instant::now(),
            is_let_in: false,
        }
    }

    pub(crate) fn refuse(&self, why: Refusal) {
        self.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self, why: Refusal) -> f64 {
        self.refused[why as usize].load(Ordering::Relaxed) as f64
    }

    pub(crate) fn read(&self) -> Counts {
        let load = |of: &AtomicU64| of.load(Ordering::Relaxed) as f64;
        Counts {
            waiting: load(&self.waiting),
            waiting_seats: load(&self.waiting_seats),
            requests: load(&self.requests),
            seats: load(&self.seats),
            dispatched: load(&self.dispatched),
        }
    }
}

/// The counts of a [`Tally`] at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Counts {
    pub(crate) waiting: f64,
    pub(crate) waiting_seats: f64,
    pub(crate) requests: f64,
    pub(crate) seats: f64,
    pub(crate) dispatched: f64,
}

/// A request that waits. Dropping it says that it was sent away or that its client is gone.
#[derive(Debug)]
pub(crate) struct Arrival {
    tally: Arc<Tally>,
    seats: u64,
    since: Instant,
    is_let_in: bool,
}

impl Arrival {
    /// The request is worked on until the answer is dropped.
    pub(crate) fn let_in(mut self) -> Working {
        self.is_let_in = true;
        let tally = &self.tally;
        tally.dispatched.fetch_add(1, Ordering::Relaxed);
        tally.requests.fetch_add(1, Ordering::Relaxed);
        tally.seats.fetch_add(self.seats, Ordering::Relaxed);
        Working { tally: tally.clone(), seats: self.seats }
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let tally = &self.tally;
        tally.waiting.fetch_sub(1, Ordering::Relaxed);
        tally.waiting_seats.fetch_sub(self.seats, Ordering::Relaxed);
        let waited = self.since.elapsed().as_secs_f64();
        tally.waits[usize::from(self.is_let_in)].observe(waited);
    }
}

/// A request that is worked on.
#[derive(Debug)]
pub(crate) struct Working {
    tally: Arc<Tally>,
    seats: u64,
}

impl Drop for Working {
    fn drop(&mut self) {
        self.tally.requests.fetch_sub(1, Ordering::Relaxed);
        self.tally.seats.fetch_sub(self.seats, Ordering::Relaxed);
    }
}
