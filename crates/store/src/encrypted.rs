//! What a collection knows of the stored form of its objects: the stamps of encrypted values, and the values that
//! cannot be read for want of a key.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::engine::Record;
use crate::transformer::Stamp;

/// A value that is kept as it is stored until a key for it is found.
#[derive(Debug, Clone)]
pub(crate) struct Unreadable {
    pub(crate) record: Record,
    pub(crate) reason: String,
}

#[derive(Debug, Default)]
struct Known {
    stamps: HashMap<Box<str>, Stamp>,
    unreadable: BTreeMap<Box<str>, Unreadable>,
}

/// The book of one collection. Only the store's one writer (or mirror) changes it.
#[derive(Debug, Default)]
pub(crate) struct Encrypted {
    known: Mutex<Known>,
    /// So that reads of a sound collection take no lock.
    any_unreadable: AtomicBool,
}

impl Encrypted {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self, known: &Known) {
        self.any_unreadable.store(!known.unreadable.is_empty(), Ordering::Release);
    }

    pub(crate) fn stamp(&self, key: &str) -> Option<Stamp> {
        self.lock().stamps.get(key).cloned()
    }

    /// The stamps of all values, each once.
    pub(crate) fn stamps(&self) -> BTreeSet<Stamp> {
        self.lock().stamps.values().cloned().collect()
    }

    /// The value of this key is readable.
    pub(crate) fn readable(&self, key: &str, stamp: Option<Stamp>) {
        let mut known = self.lock();
        match stamp {
            Some(stamp) => drop(known.stamps.insert(key.into(), stamp)),
            None => drop(known.stamps.remove(key)),
        }
        known.unreadable.remove(key);
        self.changed(&known);
    }

    /// The value of this key cannot be read.
    pub(crate) fn unreadable(&self, key: &str, value: Unreadable) {
        let mut known = self.lock();
        known.stamps.remove(key);
        known.unreadable.insert(key.into(), value);
        self.changed(&known);
    }

    /// The key is gone.
    pub(crate) fn deleted(&self, key: &str) {
        let mut known = self.lock();
        known.stamps.remove(key);
        known.unreadable.remove(key);
        self.changed(&known);
    }

    pub(crate) fn clear(&self) {
        let mut known = self.lock();
        *known = Known::default();
        self.changed(&known);
    }

    /// Why the value of this key cannot be read.
    pub(crate) fn reason(&self, key: &str) -> Option<String> {
        if !self.any_unreadable.load(Ordering::Acquire) {
            return None;
        }
        self.lock().unreadable.get(key).map(|u| u.reason.clone())
    }

    /// The first key with this prefix whose value cannot be read, and why.
    pub(crate) fn first_reason(&self, prefix: &str) -> Option<(String, String)> {
        if !self.any_unreadable.load(Ordering::Acquire) {
            return None;
        }
        let known = self.lock();
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let (key, value) = known.unreadable.range::<str, _>(from).next()?;
        key.starts_with(prefix).then(|| (key.to_string(), value.reason.clone()))
    }

    /// All values that cannot be read.
    pub(crate) fn all_unreadable(&self) -> Vec<Record> {
        if !self.any_unreadable.load(Ordering::Acquire) {
            return Vec::new();
        }
        self.lock().unreadable.values().map(|u| u.record.clone()).collect()
    }

    /// Whether the value of this key still is the one of `revision` that could not be read.
    pub(crate) fn still(&self, key: &str, revision: u64) -> bool {
        self.lock().unreadable.get(key).is_some_and(|u| u.record.revision == revision)
    }
}
