//! Writes that a controller made and its informer does not show yet. A plan made without them would
//! create or delete twice.
//!
//! Nothing has to be told that a write was seen: the view itself is asked, so that no event can be missed.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::{Informer, Resource};
use tokio::time::Instant;

use crate::meta::{Key, name, uid};

/// A write that is not seen for so long is no longer waited for (upstream's ExpectationsTimeout).
pub(crate) const EXPECTATIONS_TIMEOUT: Duration = Duration::from_secs(300);

#[derive(Debug)]
enum Write {
    Create { revision: String },
    Delete,
    Change { revision: String },
}

#[derive(Debug)]
struct Expected {
    name: String,
    uid: String,
    write: Write,
    at: Instant,
}

/// Writes that the view does not show.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) creations: usize,
    /// By uid.
    pub(crate) deletions: HashSet<String>,
    /// By uid.
    pub(crate) changes: HashSet<String>,
}

impl Pending {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Pending::default()
    }
}

/// Expected changes of `K`, by the key that is reconciled; dependents are in the key's namespace.
#[derive(Debug)]
pub(crate) struct Expectations<K> {
    view: Informer<K>,
    by_key: Arc<Mutex<HashMap<Key, Vec<Expected>>>>,
}

impl<K> Clone for Expectations<K> {
    fn clone(&self) -> Expectations<K> {
        Expectations { view: self.view.clone(), by_key: self.by_key.clone() }
    }
}

impl<K: Resource> Expectations<K> {
    pub(crate) fn new(view: Informer<K>) -> Expectations<K> {
        Expectations { view, by_key: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Vec<Expected>>> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expect(&self, key: &Key, object: &K, write: Write) {
        let meta = object.metadata();
        let (name, uid) = (name(meta).to_owned(), uid(meta).to_owned());
        let expected = Expected { name, uid, write, at: Instant::now() };
        self.lock().entry(key.clone()).or_default().push(expected);
    }

    /// `made` is the server's answer.
    pub(crate) fn expect_creation(&self, key: &Key, made: &K) {
        self.expect(key, made, Write::Create { revision: revision(made) });
    }

    pub(crate) fn expect_deletion(&self, key: &Key, object: &K) {
        self.expect(key, object, Write::Delete);
    }

    /// The deletion was refused.
    pub(crate) fn abandon_deletion(&self, key: &Key, object: &K) {
        let of = uid(object.metadata());
        if let Some(expected) = self.lock().get_mut(key) {
            expected.retain(|e| e.uid != of || !matches!(e.write, Write::Delete));
        }
    }

    /// `changed` is the server's answer.
    pub(crate) fn expect_change(&self, key: &Key, changed: &K) {
        self.expect(key, changed, Write::Change { revision: revision(changed) });
    }

    pub(crate) fn pending(&self, key: &Key) -> Pending {
        let mut all = self.lock();
        let Some(expected) = all.get_mut(key) else { return Pending::default() };
        expected.retain(|e| e.at.elapsed() < EXPECTATIONS_TIMEOUT && !self.is_seen(&key.0, e));
        let mut pending = Pending::default();
        for e in expected.iter() {
            match e.write {
                Write::Create { .. } => pending.creations += 1,
                Write::Delete => drop(pending.deletions.insert(e.uid.clone())),
                Write::Change { .. } => drop(pending.changes.insert(e.uid.clone())),
            }
        }
        if expected.is_empty() {
            all.remove(key);
        }
        pending
    }

    /// Whether the view shows every write; the last one that comes queues the key again.
    pub(crate) fn satisfied(&self, key: &Key) -> bool {
        self.pending(key).is_empty()
    }

    /// The key's object is gone.
    pub(crate) fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }

    fn is_seen(&self, namespace: &str, expected: &Expected) -> bool {
        let there = self.view.get(namespace, &expected.name);
        let there = there.filter(|o| uid(o.metadata()) == expected.uid);
        match (&expected.write, there) {
            (Write::Create { .. }, Some(_)) | (Write::Delete | Write::Change { .. }, None) => true,
            (Write::Create { revision }, None) => self.view.has_seen(revision),
            (Write::Delete, Some(object)) => object.metadata().deletion_timestamp.is_some(),
            (Write::Change { revision: wanted }, Some(object)) => {
                let number = |text: &str| text.parse::<u64>().unwrap_or(0);
                number(&revision(&*object)) >= number(wanted)
            }
        }
    }
}

fn revision<K: Resource>(object: &K) -> String {
    object.metadata().resource_version.clone().unwrap_or_default()
}
