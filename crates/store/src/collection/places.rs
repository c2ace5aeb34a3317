//! Where pages of lists ended, and how much was behind them.
//!
//! The state at a revision does not change. So the next page of a list knows how much is behind it from the page
//! before, without counting what it does not show.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lists that are under way at once; the next page of others is counted.
const PLACES_MAX: usize = 64;

#[derive(Debug)]
struct Place {
    revision: u64,
    prefix: Box<str>,
    key: Box<str>,
    behind: usize,
}

/// The ends of the latest pages.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<VecDeque<Place>>);

impl Places {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many keys with `prefix` come after `key` in the state at `revision`, if that is known.
    pub(super) fn behind(&self, revision: u64, prefix: &str, key: &str) -> Option<usize> {
        let places = self.lock();
        let mut latest = places.iter().rev();
        let is_it = |p: &&Place| p.revision == revision && *p.key == *key && *p.prefix == *prefix;
        latest.find(is_it).map(|place| place.behind)
    }

    pub(super) fn learn(&self, revision: u64, prefix: &str, key: &str, behind: usize) {
        if behind == 0 {
            return;
        }
        let mut places = self.lock();
        while places.len() >= PLACES_MAX {
            places.pop_front();
        }
        places.push_back(Place { revision, prefix: prefix.into(), key: key.into(), behind });
    }

    /// For states that changed without a revision of their own.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }
}
