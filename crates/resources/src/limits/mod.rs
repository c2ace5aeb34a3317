//! How much a server takes on, and for how long it works on a request.

mod memory;
mod room;
pub mod weight;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::Status;
use auth::{RequestInfo, User};
use tokio::sync::{Semaphore, SemaphorePermit};

use memory::MemoryGuard;
pub use room::{Room, Taken};
use strategy::query::Query;

/// Settings of the wiring, with upstream's defaults.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest a request may take that is not a stream (`--request-timeout`).
    pub request_timeout: Duration,
    /// Shortest life of a watch whose client names none; up to twice that
    /// (`--min-request-timeout`).
    pub watch_min: Duration,
    /// Whether places are shared by priority levels (`--enable-priority-and-fairness`) rather than by the two
    /// numbers that follow.
    pub fairness: bool,
    /// Reads worked on at a time (`--max-requests-inflight`); 0 is no limit.
    pub reads: usize,
    /// Changes worked on at a time (`--max-mutating-requests-inflight`); 0 is no limit.
    pub changes: usize,
    /// How long former states can be listed at least, and at most twice that
    /// (`--etcd-compaction-interval`); 0 is as long as memory allows.
    pub history: Duration,
    /// Connections held at a time (`--max-connections`); a quarter of them from one source.
    pub connections: usize,
    /// Resident bytes of the process from which requests over the network are answered with 429
    /// (`--memory-limit`); 0 is no limit.
    pub memory: u64,
}

/// Connections that are held at a time where memory allows it.
const CONNECTIONS_MAX: usize = 8192;
/// Bytes that a connection may take: TLS, a request's head, responses that the client does not read.
const CONNECTION_SIZE: u64 = 128 * 1024;
/// Part of the memory limit that connections may take together.
const CONNECTIONS_PART: u64 = 2;

/// Connections that fit into a process of `memory` bytes; 0 is no limit.
fn connections(memory: u64) -> usize {
    let fit = memory / CONNECTIONS_PART / CONNECTION_SIZE;
    match usize::try_from(fit).unwrap_or(CONNECTIONS_MAX) {
        0 => CONNECTIONS_MAX,
        fit => fit.min(CONNECTIONS_MAX),
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::within(memory::default_limit())
    }
}

impl Limits {
    /// The defaults of a process that may take `memory` bytes; 0 is no limit.
    pub fn within(memory: u64) -> Limits {
        Limits {
            request_timeout: Duration::from_secs(60),
            watch_min: Duration::from_secs(1800),
            fairness: true,
            reads: 400,
            changes: 200,
            history: Duration::from_secs(300),
            connections: connections(memory),
            memory,
        }
    }

    /// How long this request may take: what it asks for, within what the server allows.
    pub fn deadline(&self, query: &Query) -> Result<Duration, Status> {
        let Some(text) = query.get("timeout").filter(|text| !text.is_empty()) else {
            return Ok(self.request_timeout);
        };
        let asked = api::duration::parse(text).map_err(|why| {
            Status::bad_request(format!("invalid timeout specified in the request URL - {why}"))
        })?;
        let within =
            !asked.negative && !asked.length.is_zero() && asked.length < self.request_timeout;
        Ok(if within { asked.length } else { self.request_timeout })
    }
}

/// Lets go of old history, for ever: continue tokens and lists of former revisions expire as they do
/// with upstream, whose clients count on it.
pub async fn forget_regularly(store: store::Store, interval: Duration) {
    let mut past = None;
    loop {
        tokio::time::sleep(interval).await;
        let now = store.revision();
        if let Some(revision) = past.replace(now) {
            store.forget_before(revision);
        }
    }
}

/// What a request is told that took too long.
pub fn timed_out() -> Status {
    Status::timeout("Timeout: request did not complete within the allotted timeout")
}

pub fn too_many() -> Status {
    let message = "Too many requests, please try again later.";
    Status::failure(429, "TooManyRequests", message).with_retry_after(1)
}

/// A request that is worked on.
pub struct Working<'a>(&'a AtomicUsize);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Places for requests that are worked on. Streams take none.
#[derive(Debug)]
pub struct InFlight {
    reads: Option<Semaphore>,
    changes: Option<Semaphore>,
    /// Reads and changes that are worked on.
    working: [AtomicUsize; 2],
    /// Longest wait for a place: a quarter of the request timeout, as API priority and fairness
    /// lets requests wait in its queues.
    wait: Duration,
    pub room: Room,
    memory: MemoryGuard,
}

impl InFlight {
    pub fn new(limits: &Limits) -> InFlight {
        let places = |n: usize| (n > 0).then(|| Semaphore::new(n));
        InFlight {
            reads: places(limits.reads),
            changes: places(limits.changes),
            working: Default::default(),
            wait: limits.request_timeout / 4,
            room: Room::new(limits.request_timeout / 4, limits.memory),
            memory: MemoryGuard::new(limits.memory),
        }
    }

    /// Refuses a request when the process takes too much memory. Administrators are always let in:
    /// they may have to mend what takes it.
    pub fn check_memory(&self, user: &User) -> Result<(), Status> {
        match self.memory.is_over() && !user.in_group("system:masters") {
            true => Err(too_many()),
            false => Ok(()),
        }
    }

    /// Reads and changes that are worked on.
    pub fn working(&self) -> (usize, usize) {
        let read = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (read(&self.working[0]), read(&self.working[1]))
    }

    /// Counts a request as long as the guard lives.
    pub fn work(&self, info: &RequestInfo) -> Working<'_> {
        let count = &self.working[usize::from(!info.is_read())];
        count.fetch_add(1, Ordering::Relaxed);
        Working(count)
    }

    /// A place to work in; nothing is held by those who always get an answer (`system:masters`).
    /// Fails with 429 when none came free in time.
    pub async fn enter(
        &self,
        user: &User,
        info: &RequestInfo,
    ) -> Result<Option<SemaphorePermit<'_>>, Status> {
        let places = if info.is_read() { &self.reads } else { &self.changes };
        let Some(places) = places.as_ref().filter(|_| !user.in_group("system:masters")) else {
            return Ok(None);
        };
        match tokio::time::timeout(self.wait, places.acquire()).await {
            // The semaphore is never closed.
            Ok(permit) => Ok(permit.ok()),
            Err(_) => Err(too_many()),
        }
    }
}
