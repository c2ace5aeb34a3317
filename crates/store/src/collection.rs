//! One resource's objects in memory: the present state, and the log of how it came about.
//!
//! The log serves three purposes with one structure: watchers are cursors into it, a list at an
//! earlier revision is the present state with later entries undone, and selectors get the object
//! before and after. It is bounded by bytes and, by [`crate::Store::forget_before`], by age; who falls
//! off its end is told so (410).

mod objects;
mod places;
mod state;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use api::Object;
use tokio::sync::watch;

use self::objects::Objects;
use self::places::Places;
use self::state::{Asked, LOG_ENTRIES_MIN, State};
use crate::encrypted::Encrypted;
use crate::transformer::Stamp;

/// What a collection is, as far as the store cares.
#[derive(Debug, Clone)]
pub struct CollectionSpec {
    /// Key prefix with slashes at both ends, e.g. `/registry/pods/`.
    pub prefix: String,
    /// Dotted paths of the fields that selectors may use.
    pub selectable: &'static [&'static str],
    /// The one of them by whose values [`Collection::list_by`] finds objects without looking at all.
    pub indexed: Option<&'static str>,
}

impl CollectionSpec {
    /// Where the indexed field is among the selectable ones.
    fn index(&self) -> Option<usize> {
        let indexed = self.indexed?;
        self.selectable.iter().position(|field| *field == indexed)
    }
}

/// One change.
#[derive(Debug, Clone)]
pub struct Event {
    pub revision: u64,
    pub key: Arc<str>,
    pub old: Option<Arc<Object>>,
    /// Absent for a deletion.
    pub new: Option<Arc<Object>>,
}

/// The revision asked for is no longer in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} ({oldest})")]
pub struct Expired {
    pub asked: u64,
    pub oldest: u64,
}

/// A list's result.
#[derive(Debug, Clone)]
pub struct Page {
    pub objects: Vec<Arc<Object>>,
    /// Revision that the page shows.
    pub revision: u64,
    /// Key of the last object looked at, when there are more behind it.
    pub last_key: Option<Arc<str>>,
    /// How many keys are behind it.
    pub remaining: usize,
}

/// All objects under one prefix. Keys are relative to it (`namespace/name` or `name`).
#[derive(Debug)]
pub struct Collection {
    spec: CollectionSpec,
    state: RwLock<State>,
    places: Places,
    /// The store's revision as of the last publication anywhere: what a list of this collection
    /// is current at.
    current: Arc<AtomicU64>,
    changed: watch::Sender<u64>,
    /// Changes that have been published.
    received: AtomicU64,
    pub(crate) encrypted: Encrypted,
}

impl Collection {
    pub(crate) fn new(spec: CollectionSpec, current: Arc<AtomicU64>) -> Collection {
        let (changed, _) = watch::channel(0);
        let encrypted = Encrypted::default();
        let state = State { objects: Objects::new(spec.index()), ..State::default() };
        let (state, places) = (RwLock::new(state), Places::default());
        let received = AtomicU64::default();
        Collection { spec, state, places, current, changed, received, encrypted }
    }

    pub fn spec(&self) -> &CollectionSpec {
        &self.spec
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, key: &str) -> Option<Arc<Object>> {
        self.read().objects.get(key).cloned()
    }

    pub fn len(&self) -> usize {
        self.read().objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Changes that the engine or etcd has told since the start.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Revision that reads of this collection show right now.
    pub fn revision(&self) -> u64 {
        self.current.load(Ordering::Acquire)
    }

    /// Revision of this collection's own last change (of what was loaded, when nothing changed).
    pub fn last_change(&self) -> u64 {
        let state = self.read();
        state.log.back().map_or(state.floor, |event| event.revision)
    }

    /// Objects whose key starts with `prefix` and comes after `after`, at most `limit` of those
    /// that `keep` accepts, as of `at` (0: now).
    pub fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        at: u64,
        limit: usize,
        keep: &dyn Fn(&Object) -> bool,
    ) -> Result<Page, Expired> {
        self.list_by(None, (prefix, after), at, limit, keep)
    }

    /// [`Collection::list`] of objects whose selectable field has a value: with an index of the field, what has
    /// another is not looked at.
    pub fn list_by(
        &self,
        field: Option<(&str, &str)>,
        (prefix, after): (&str, Option<&str>),
        at: u64,
        limit: usize,
        keep: &dyn Fn(&Object) -> bool,
    ) -> Result<Page, Expired> {
        let value = match field {
            Some((field, value)) if self.spec.indexed == Some(field) => Some(value),
            _ => None,
        };
        let state = self.read();
        // Read under the lock: a publication changes both or neither.
        let now = self.revision();
        let revision = if at == 0 { now } else { at };
        if revision < state.forgotten {
            return Err(Expired { asked: revision, oldest: state.forgotten });
        }
        let undone = if revision < now { state.undo_to(revision)? } else { BTreeMap::new() };
        let asked = Asked { value, prefix, after, limit, keep, revision };
        Ok(state.page(&undone, asked, &self.places))
    }

    /// Everything that changes after `revision` (0: from now on).
    pub fn watch(self: &Arc<Self>, revision: u64) -> Result<Watcher, Expired> {
        let changed = self.changed.subscribe();
        let state = self.read();
        let revision = if revision == 0 { self.revision() } else { revision };
        state.check(revision)?;
        let gaps = state.gaps;
        drop(state);
        Ok(Watcher { collection: self.clone(), seen: revision, changed, gaps })
    }

    /// Lets go of the states before `revision`: lists of them end, and their memory is given back.
    /// Who has seen all there is goes on watching.
    pub(crate) fn forget(&self, revision: u64) {
        let mut state = self.write();
        while state.log.front().is_some_and(|oldest| oldest.revision <= revision) {
            state.drop_oldest();
        }
        state.log.shrink_to(LOG_ENTRIES_MIN);
        state.forgotten = state.forgotten.max(revision);
    }

    /// Puts a loaded object in place, before anyone reads.
    pub(crate) fn restore(&self, key: &str, object: Object) {
        self.write().objects.insert(key.into(), Arc::new(object));
    }

    /// Events up to and including `revision` are unknown: the log starts here.
    pub(crate) fn set_floor(&self, revision: u64) {
        self.write().floor = revision;
    }

    /// Takes another state whose history is not known: watchers and older lists learn of the gap.
    pub(crate) fn replace(&self, all: BTreeMap<Arc<str>, Arc<Object>>, revision: u64) {
        let mut objects = Objects::new(self.spec.index());
        all.into_iter().for_each(|(key, object)| objects.insert(key, object));
        let mut state = self.write();
        let gaps = state.gaps + 1;
        *state = State { objects, floor: revision, gaps, ..State::default() };
        self.places.clear();
        drop(state);
        self.changed.send_replace(revision);
    }

    /// Shows objects that were there and could not be read until now.
    pub(crate) fn reveal(&self, revealed: Vec<(String, Object, Option<Stamp>)>) {
        let mut state = self.write();
        let revision = self.revision();
        for (key, object, stamp) in revealed {
            if self.encrypted.still(&key, object.revision()) {
                self.encrypted.readable(&key, stamp);
                state.objects.insert(key.into(), Arc::new(object));
            }
        }
        let (objects, gaps) = (std::mem::take(&mut state.objects), state.gaps + 1);
        *state = State { objects, floor: revision, gaps, ..State::default() };
        self.places.clear();
        drop(state);
        self.changed.send_replace(revision);
    }

    /// Why the stored value of this key cannot be read, if so.
    pub fn unreadable(&self, key: &str) -> Option<String> {
        self.encrypted.reason(key)
    }

    /// The first key that starts with `prefix` and whose stored value cannot be read, and why.
    pub fn first_unreadable(&self, prefix: &str) -> Option<(String, String)> {
        self.encrypted.first_reason(prefix)
    }

    /// Makes committed events visible. `current` is raised by `raise` while every touched
    /// collection is locked, so that no reader sees a revision without its state.
    pub(crate) fn publish(batches: &[(Arc<Collection>, Vec<Event>)], revision: u64) {
        let mut guards: Vec<_> = batches.iter().map(|(c, _)| c.write()).collect();
        for (guard, (collection, events)) in guards.iter_mut().zip(batches) {
            events.iter().for_each(|event| guard.apply(event.clone()));
            collection.received.fetch_add(events.len() as u64, Ordering::Relaxed);
        }
        if let Some((first, _)) = batches.first() {
            first.current.store(revision, Ordering::Release);
        }
        drop(guards);
        for (collection, _) in batches {
            collection.changed.send_replace(revision);
        }
    }
}

/// A cursor into a collection's log.
#[derive(Debug)]
pub struct Watcher {
    collection: Arc<Collection>,
    /// Last revision delivered.
    seen: u64,
    changed: watch::Receiver<u64>,
    /// The collection's as of the beginning.
    gaps: u64,
}

/// Events copied out at once: keeps the lock short without waking per event.
const BATCH: usize = 256;

impl Watcher {
    /// The next events; waits for at least one.
    pub async fn next(&mut self) -> Result<Vec<Event>, Expired> {
        loop {
            // Marked before reading, so that a publication in between wakes the next wait.
            self.changed.borrow_and_update();
            let events = self.ready()?;
            if !events.is_empty() {
                return Ok(events);
            }
            if self.changed.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Events that are already there.
    pub fn ready(&mut self) -> Result<Vec<Event>, Expired> {
        let state = self.collection.read();
        state.check(self.seen)?;
        if state.gaps != self.gaps {
            return Err(Expired { asked: self.seen, oldest: state.floor });
        }
        let from = state.log.partition_point(|e| e.revision <= self.seen);
        let events: Vec<Event> = state.log.range(from..).take(BATCH).cloned().collect();
        if let Some(last) = events.last() {
            self.seen = last.revision;
        }
        Ok(events)
    }

    /// A revision up to which everything has been delivered: what a bookmark may say.
    pub fn progress(&mut self) -> u64 {
        let state = self.collection.read();
        let all_seen = state.log.back().is_none_or(|last| last.revision <= self.seen);
        if all_seen {
            self.seen = self.seen.max(self.collection.revision());
        }
        self.seen
    }
}
