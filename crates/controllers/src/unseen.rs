//! What a controller has made and its informer has not shown yet: making more before would double it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::meta::Key;

/// After this long what was made and never seen is no longer waited for.
pub(crate) const UNSEEN_MAX: Duration = Duration::from_secs(60);

/// Names by the key that is being reconciled. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unseen(Arc<Mutex<HashMap<Key, HashMap<String, Instant>>>>);

impl Unseen {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, HashMap<String, Instant>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what was made, unless it is `in_view`: asked under the lock that [`Unseen::seen`] takes.
    pub(crate) fn made(&self, key: &Key, name: String, in_view: impl FnOnce(&str) -> bool) {
        let mut all = self.lock();
        if !in_view(&name) {
            all.entry(key.clone()).or_default().insert(name, Instant::now());
        }
    }

    pub(crate) fn seen(&self, key: &Key, name: &str) {
        if let Some(unseen) = self.lock().get_mut(key) {
            unseen.remove(name);
        }
    }

    /// Whether something just made is not in view; its coming queues the key again.
    pub(crate) fn waits(&self, key: &Key) -> bool {
        let mut all = self.lock();
        let Some(unseen) = all.get_mut(key) else { return false };
        unseen.retain(|_, at| at.elapsed() < UNSEEN_MAX);
        let waits = !unseen.is_empty();
        if !waits {
            all.remove(key);
        }
        waits
    }
}
