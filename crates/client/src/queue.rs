//! A work queue that knows nothing of Kubernetes: delay, dedup, hold while running, per-key
//! back-off.
//!
//! A key that is added while a worker holds it runs once more afterwards, never twice at once. A
//! key with several due times keeps the earliest. Order is by due time, then by insertion.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::figures::{self, Figured, QueueState};

/// First retry delay; doubles with every failure (client-go's item exponential limiter).
const BACKOFF_BASE: Duration = Duration::from_millis(5);
/// Longest retry delay: a fault that lasts is retried often enough to recover within minutes.
const BACKOFF_MAX: Duration = Duration::from_secs(300);

/// A shared queue of keys. Clones are the same queue.
#[derive(Debug)]
pub struct Queue<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Queue<T> {
        Queue { shared: self.shared.clone() }
    }
}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    wake: Notify,
    /// Of its workers, in figures.
    name: OnceLock<String>,
}

#[derive(Debug)]
struct State<T> {
    /// Waiting keys by due time and sequence.
    due: BTreeMap<(Instant, u64), T>,
    position: HashMap<T, (Instant, u64)>,
    /// Keys that workers hold, since when.
    running: HashMap<T, Instant>,
    /// Keys added while running, with the time they are due.
    again: HashMap<T, Instant>,
    failures: HashMap<T, u32>,
    sequence: u64,
    adds: u64,
    retries: u64,
    closed: bool,
}

impl<T: Clone + Eq + Hash> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue::new()
    }
}

impl<T: Clone + Eq + Hash> Queue<T> {
    pub fn new() -> Queue<T> {
        let state = State {
            due: BTreeMap::new(),
            position: HashMap::new(),
            running: HashMap::new(),
            again: HashMap::new(),
            failures: HashMap::new(),
            sequence: 0,
            adds: 0,
            retries: 0,
            closed: false,
        };
        let (state, wake, name) = (Mutex::new(state), Notify::new(), OnceLock::new());
        Queue { shared: Arc::new(Shared { state, wake, name }) }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.shared.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Due now.
    pub fn add(&self, key: T) {
        self.add_at(key, Instant::now());
    }

    /// Due after `delay`, unless it is due earlier already.
    pub fn add_after(&self, key: T, delay: Duration) {
        self.add_at(key, Instant::now() + delay);
    }

    fn add_at(&self, key: T, at: Instant) {
        self.lock().add(key, at);
        self.shared.wake.notify_one();
    }

    /// Due after the key's own back-off, which doubles with each call until [`Queue::forget`].
    pub fn add_backoff(&self, key: T) {
        let delay = {
            let mut state = self.lock();
            state.retries += 1;
            state.next_backoff(&key)
        };
        self.add_after(key, delay);
    }

    /// The key succeeded: its back-off starts over.
    pub fn forget(&self, key: &T) {
        self.lock().failures.remove(key);
    }

    /// Waits for the next due key and holds it until [`Queue::done`]; `None` once closed.
    pub async fn next(&self) -> Option<T> {
        loop {
            let wait = {
                let mut state = self.lock();
                if state.closed {
                    return None;
                }
                match state.take_due(Instant::now()) {
                    Ok((key, waited)) => {
                        if let Some(name) = self.shared.name.get() {
                            figures::taken(name, waited);
                        }
                        // Another key may be due as well: pass the wake-up on.
                        self.shared.wake.notify_one();
                        return Some(key);
                    }
                    Err(wait) => wait,
                }
            };
            match wait {
                None => self.shared.wake.notified().await,
                Some(at) => {
                    let notified = self.shared.wake.notified();
                    let _elapsed = tokio::time::timeout_at(at, notified).await;
                }
            }
        }
    }

    /// Releases a key; if it was added meanwhile it becomes due again.
    pub fn done(&self, key: &T) {
        let mut state = self.lock();
        if let (Some(begun), Some(name)) = (state.running.remove(key), self.shared.name.get()) {
            figures::worked(name, begun.elapsed());
        }
        if let Some(at) = state.again.remove(key) {
            state.add(key.clone(), at);
            drop(state);
            self.shared.wake.notify_one();
        }
    }

    /// Ends the queue: every waiting and future [`Queue::next`] returns `None`.
    pub fn close(&self) {
        self.lock().closed = true;
        self.shared.wake.notify_waiters();
        self.shared.wake.notify_one();
    }

    /// Keys waiting, not counting those held.
    pub fn len(&self) -> usize {
        self.lock().due.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Clone + Eq + Hash + Send + 'static> Queue<T> {
    /// From now on the queue is told in figures, under this name.
    pub(crate) fn name(&self, name: &str) {
        if self.shared.name.set(name.to_owned()).is_ok() {
            let shared: Arc<dyn Figured> = self.shared.clone();
            figures::name_queue(name, Arc::downgrade(&shared));
        }
    }
}

impl<T: Send> Figured for Shared<T> {
    fn state(&self) -> QueueState {
        let state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let now = Instant::now();
        let worked_on = || state.running.values().map(|begun| now - *begun);
        QueueState {
            depth: state.due.keys().take_while(|(at, _)| *at <= now).count(),
            adds: state.adds,
            retries: state.retries,
            unfinished: worked_on().sum(),
            longest: worked_on().max().unwrap_or_default(),
        }
    }
}

impl<T: Clone + Eq + Hash> State<T> {
    fn add(&mut self, key: T, at: Instant) {
        if self.running.contains_key(&key) {
            let due = self.again.entry(key).or_insert(at);
            *due = at.min(*due);
            return;
        }
        if let Some(&slot) = self.position.get(&key) {
            if slot.0 <= at {
                return;
            }
            self.due.remove(&slot);
        } else {
            self.adds += 1;
        }
        self.sequence += 1;
        self.position.insert(key.clone(), (at, self.sequence));
        self.due.insert((at, self.sequence), key);
    }

    /// A due key, and for how long it was; otherwise when the next one is due.
    fn take_due(&mut self, now: Instant) -> Result<(T, Duration), Option<Instant>> {
        let Some((&slot, _)) = self.due.first_key_value() else { return Err(None) };
        if slot.0 > now {
            return Err(Some(slot.0));
        }
        let key = self.due.remove(&slot).expect("the slot was just seen");
        self.position.remove(&key);
        self.running.insert(key.clone(), now);
        Ok((key, now - slot.0))
    }

    fn next_backoff(&mut self, key: &T) -> Duration {
        let failures = self.failures.entry(key.clone()).or_insert(0);
        let delay = BACKOFF_BASE.saturating_mul(1 << (*failures).min(20));
        *failures += 1;
        delay.min(BACKOFF_MAX)
    }
}

#[cfg(test)]
mod tests;
