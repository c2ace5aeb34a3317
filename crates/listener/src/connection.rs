//! One connection: is it at work, since when is it idle, and when must it end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::gate::Limits;

#[derive(Debug)]
pub struct Connection {
    limits: Limits,
    started: Instant,
    /// Requests that are not answered in full.
    active: AtomicUsize,
    /// Requests so far.
    requests: AtomicU64,
    /// Milliseconds after `started` at which the last request ended.
    last: AtomicU64,
    /// Answers that are being sent: milliseconds after `started` of the last progress.
    sending: Mutex<HashMap<u64, Arc<AtomicU64>>>,
    /// Milliseconds after `started`, plus one, at which the head of the next request began; 0 for none.
    head: AtomicU64,
    /// The same for a write that the client does not take.
    blocked: AtomicU64,
    closed: CancellationToken,
}

/// A request on its way, until its answer is sent.
#[derive(Debug)]
pub struct Request {
    connection: Arc<Connection>,
}

/// The sending of an answer that is no stream.
#[derive(Debug)]
pub struct Progress {
    connection: Arc<Connection>,
    number: u64,
    at: Arc<AtomicU64>,
}

impl Connection {
    pub(crate) fn new(limits: Limits) -> Connection {
        Connection {
            limits,
            started: Instant::now(),
            active: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            last: AtomicU64::new(0),
            sending: Mutex::default(),
            head: AtomicU64::new(0),
            blocked: AtomicU64::new(0),
            closed: CancellationToken::new(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn at(&self, millis: u64) -> Instant {
        self.started + std::time::Duration::from_millis(millis)
    }

    /// Marks a request's beginning.
    pub fn request(self: &Arc<Connection>) -> Request {
        self.head.store(0, Ordering::Release);
        self.active.fetch_add(1, Ordering::AcqRel);
        self.requests.fetch_add(1, Ordering::AcqRel);
        Request { connection: self.clone() }
    }

    /// Since when no request is under way; `None` while one is.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let idle = self.active.load(Ordering::Acquire) == 0;
        idle.then(|| self.at(self.last.load(Ordering::Acquire)))
    }

    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    /// Returns when the connection has to end: it made room for another one, it was silent for too
    /// long, or its client does not read its answers.
    pub async fn ended(&self) {
        loop {
            let Some(next) = self.next_look() else { return };
            tokio::select! {
                () = self.closed.cancelled() => return,
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    /// True if the connection has to end now.
    pub fn ended_now(&self) -> bool {
        self.closed.is_cancelled() || self.next_look().is_none()
    }

    /// When to look again; `None` when it is over. Never later than a write that blocks from now on
    /// would be due.
    fn next_look(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut due = match self.idle_since() {
            Some(since) if self.requests.load(Ordering::Acquire) == 0 => since + self.limits.first,
            Some(since) => match self.marked(&self.head) {
                Some(begun) => begun + self.limits.first,
                // A head may begin at any time.
                None if since + self.limits.idle > now => {
                    (since + self.limits.idle).min(now + self.limits.first)
                }
                None => return None,
            },
            None => match self.slowest() {
                Some(at) => self.at(at) + self.limits.stall,
                None => now + self.limits.stall,
            },
        };
        if let Some(since) = self.marked(&self.blocked) {
            due = due.min(since + self.limits.stall);
        }
        (due > now).then_some(due)
    }

    fn marked(&self, mark: &AtomicU64) -> Option<Instant> {
        mark.load(Ordering::Acquire).checked_sub(1).map(|millis| self.at(millis))
    }

    /// Bytes came in: between requests, the head of the next one begins.
    pub(crate) fn read(&self) {
        if self.active.load(Ordering::Acquire) == 0 {
            let now = self.now() + 1;
            // Only the first bytes of a head count.
            let _begun = self.head.compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// Bytes went out, or cannot go because the client takes none.
    pub(crate) fn wrote(&self, pending: bool) {
        if !pending {
            self.blocked.store(0, Ordering::Release);
            return;
        }
        let now = self.now() + 1;
        let _since = self.blocked.compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The oldest progress of the answers that are being sent.
    fn slowest(&self) -> Option<u64> {
        let sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        sending.values().map(|at| at.load(Ordering::Acquire)).min()
    }
}

impl Request {
    /// Watches over the sending of this request's answer.
    pub fn sending(&self) -> Progress {
        let connection = self.connection.clone();
        let at = Arc::new(AtomicU64::new(connection.now()));
        // Numbers are never used twice: the count of requests has grown since.
        let number = connection.requests.fetch_add(1, Ordering::AcqRel);
        let mut sending = connection.sending.lock().unwrap_or_else(PoisonError::into_inner);
        sending.insert(number, at.clone());
        drop(sending);
        Progress { connection, number, at }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.connection.last.store(self.connection.now(), Ordering::Release);
        self.connection.active.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Progress {
    /// The client took a part.
    pub fn made(&self) {
        self.at.store(self.connection.now(), Ordering::Release);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let mut sending = self.connection.sending.lock().unwrap_or_else(PoisonError::into_inner);
        sending.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn connection() -> Arc<Connection> {
        Arc::new(Connection::new(Limits::new(4)))
    }

    async fn lives_for(connection: &Connection) -> Duration {
        let from = Instant::now();
        connection.ended().await;
        from.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends() {
        let silent = connection();
        assert_eq!(lives_for(&silent).await, Duration::from_secs(32));
        let served = connection();
        drop(served.request());
        assert_eq!(lives_for(&served).await, Duration::from_secs(90));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_may_be_silent() {
        let busy = connection();
        let _watch = busy.request();
        let day = Duration::from_secs(86_400);
        assert!(tokio::time::timeout(day, busy.ended()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_unread_answer_ends() {
        let slow = connection();
        let request = slow.request();
        let progress = request.sending();
        tokio::time::advance(Duration::from_secs(50)).await;
        progress.made();
        assert_eq!(lives_for(&slow).await, Duration::from_secs(60));
        drop(progress);
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, slow.ended()).await.is_err(), "it was read at last");
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_comes_in_drops_ends() {
        let served = connection();
        drop(served.request());
        tokio::time::advance(Duration::from_secs(80)).await;
        served.read();
        tokio::time::advance(Duration::from_secs(20)).await;
        served.read();
        assert_eq!(lives_for(&served).await, Duration::from_secs(12), "32 s from its first byte");
        let served = connection();
        drop(served.request());
        served.read();
        drop(served.request());
        assert_eq!(lives_for(&served).await, Duration::from_secs(90), "the head was completed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_nobody_reads_ends() {
        let stream = connection();
        let _watch = stream.request();
        stream.wrote(true);
        tokio::time::advance(Duration::from_secs(59)).await;
        stream.wrote(true);
        assert_eq!(lives_for(&stream).await, Duration::from_secs(1));
        stream.wrote(false);
        let day = Duration::from_secs(86_400);
        assert!(tokio::time::timeout(day, stream.ended()).await.is_err(), "it reads again");
    }

    #[tokio::test(start_paused = true)]
    async fn one_progress_does_not_hide_another() {
        let mixed = connection();
        let request = mixed.request();
        let (_stalled, moving) = (request.sending(), request.sending());
        tokio::time::advance(Duration::from_secs(59)).await;
        moving.made();
        assert_eq!(lives_for(&mixed).await, Duration::from_secs(1));
    }
}
