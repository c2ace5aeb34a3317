//! How long failed pods of a node stay before they are replaced.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// First delay; doubles with each failure (upstream's BackOff of daemon pods).
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// A set by uid, its generation, and a node: another template starts anew.
type Key = (String, i64, String);

#[derive(Debug, Clone, Copy)]
struct Entry {
    delay: Duration,
    since: Instant,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Backoff(Arc<Mutex<HashMap<Key, Entry>>>);

impl Backoff {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is left of the delay.
    pub(crate) fn left(&self, key: &Key) -> Option<Duration> {
        let entry = self.lock().get(key).copied()?;
        let left = entry.delay.saturating_sub(entry.since.elapsed());
        Some(left).filter(|left| !left.is_zero())
    }

    /// Another pod of the node failed.
    pub(crate) fn failed(&self, key: Key) {
        let mut all = self.lock();
        // Long without a failure: the node works again.
        all.retain(|_, entry| entry.since.elapsed() < 2 * LONGEST);
        let delay = all.get(&key).map_or(FIRST, |entry| (entry.delay * 2).min(LONGEST));
        all.insert(key, Entry { delay, since: Instant::now() });
    }
}
