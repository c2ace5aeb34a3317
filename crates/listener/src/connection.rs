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

    /// When to look again; `None` when it is over.
    fn next_look(&self) -> Option<Instant> {
        let now = Instant::now();
        let due = match self.idle_since() {
            Some(since) if self.requests.load(Ordering::Acquire) == 0 => since + self.limits.first,
            Some(since) => since + self.limits.idle,
            None => match self.slowest() {
                Some(at) => self.at(at) + self.limits.stall,
                None => return Some(now + self.limits.stall),
            },
        };
        (due > now).then_some(due)
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
    async fn one_progress_does_not_hide_another() {
        let mixed = connection();
        let request = mixed.request();
        let (_stalled, moving) = (request.sending(), request.sending());
        tokio::time::advance(Duration::from_secs(59)).await;
        moving.made();
        assert_eq!(lives_for(&mixed).await, Duration::from_secs(1));
    }
}
