//! One resource's objects in memory: the present state, and the log of how it came about.
//!
//! The log serves three purposes with one structure: watchers are cursors into it, a list at an
//! earlier revision is the present state with later entries undone, and selectors get the object
//! before and after. It is bounded by bytes and, by [`crate::Store::forget_before`], by age; who falls
//! off its end is told so (410).

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use api::Object;
use tokio::sync::watch;

use crate::encrypted::Encrypted;
use crate::transformer::Stamp;

/// Bytes of object states a log may hold on to besides the present state. At 4 KB a pod this is
/// about 4,000 changes: minutes of a busy small cluster, and watchers read within milliseconds.
const LOG_BYTES: usize = 16 << 20;
/// Entries kept however large they are, so that a few huge objects do not starve watchers.
const LOG_ENTRIES_MIN: usize = 64;
/// Entries kept at most: bounds the log of tiny objects.
const LOG_ENTRIES_MAX: usize = 32_768;

/// What a collection is, as far as the store cares.
#[derive(Debug, Clone)]
pub struct CollectionSpec {
    /// Key prefix with slashes at both ends, e.g. `/registry/pods/`.
    pub prefix: String,
    /// Dotted paths of the fields that selectors may use.
    pub selectable: &'static [&'static str],
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
    /// The store's revision as of the last publication anywhere: what a list of this collection
    /// is current at.
    current: Arc<AtomicU64>,
    changed: watch::Sender<u64>,
    pub(crate) encrypted: Encrypted,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<Arc<str>, Arc<Object>>,
    log: VecDeque<Event>,
    log_bytes: usize,
    /// Events after this revision are all in the log.
    floor: u64,
    /// Lists of earlier revisions are refused, whether or not they could still be made.
    forgotten: u64,
    /// How often a state came whose history is not known: watchers of an earlier one have missed something.
    gaps: u64,
}

impl Collection {
    pub(crate) fn new(spec: CollectionSpec, current: Arc<AtomicU64>) -> Collection {
        let (changed, _) = watch::channel(0);
        let encrypted = Encrypted::default();
        Collection { spec, state: RwLock::default(), current, changed, encrypted }
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
        let state = self.read();
        // Read under the lock: a publication changes both or neither.
        let now = self.revision();
        let revision = if at == 0 { now } else { at };
        if revision < state.forgotten {
            return Err(Expired { asked: revision, oldest: state.forgotten });
        }
        let undone = if revision < now { state.undo_to(revision)? } else { BTreeMap::new() };
        Ok(state.page(&undone, prefix, after, limit, keep, revision))
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
    pub(crate) fn replace(&self, objects: BTreeMap<Arc<str>, Arc<Object>>, revision: u64) {
        let mut state = self.write();
        let gaps = state.gaps + 1;
        *state = State { objects, floor: revision, gaps, ..State::default() };
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
        for (guard, (_, events)) in guards.iter_mut().zip(batches) {
            events.iter().for_each(|event| guard.apply(event.clone()));
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

impl State {
    fn check(&self, revision: u64) -> Result<(), Expired> {
        if revision < self.floor {
            return Err(Expired { asked: revision, oldest: self.floor });
        }
        Ok(())
    }

    fn apply(&mut self, event: Event) {
        match &event.new {
            Some(object) => self.objects.insert(event.key.clone(), object.clone()),
            None => self.objects.remove(&event.key),
        };
        self.log_bytes += weight(&event);
        self.log.push_back(event);
        while self.log.len() > LOG_ENTRIES_MIN
            && (self.log_bytes > LOG_BYTES || self.log.len() > LOG_ENTRIES_MAX)
        {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.log.pop_front() {
            self.log_bytes -= weight(&oldest);
            self.floor = oldest.revision;
        }
    }

    /// States at `revision` of the keys that changed since.
    fn undo_to(&self, revision: u64) -> Result<BTreeMap<&Arc<str>, Option<&Arc<Object>>>, Expired> {
        self.check(revision)?;
        let mut undone = BTreeMap::new();
        for event in self.log.iter().rev().take_while(|e| e.revision > revision) {
            undone.insert(&event.key, event.old.as_ref());
        }
        Ok(undone)
    }

    fn page(
        &self,
        undone: &BTreeMap<&Arc<str>, Option<&Arc<Object>>>,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        keep: &dyn Fn(&Object) -> bool,
        revision: u64,
    ) -> Page {
        let from = match after {
            Some(key) => Bound::Excluded(key),
            None => Bound::Included(prefix),
        };
        let now = self.objects.range::<str, _>((from, Bound::Unbounded));
        let now = now.take_while(|(key, _)| key.starts_with(prefix));
        let untouched = now.filter(|(key, _)| undone.is_empty() || !undone.contains_key(key));
        let before = |key: &str| key.starts_with(prefix) && after.is_none_or(|a| key > a);
        let restored = undone.iter().filter(|(key, _)| before(key));
        let restored = restored.filter_map(|(key, old)| Some((*key, (*old)?)));
        let mut rows = merged(untouched, restored);
        let (mut objects, mut looked_at) = (Vec::new(), 0);
        while let Some((key, object)) = rows.next() {
            looked_at += 1;
            if !keep(object) {
                continue;
            }
            objects.push(object.clone());
            if objects.len() == limit {
                // Of a whole collection, what is left needs no counting.
                let is_whole = prefix.is_empty() && after.is_none() && undone.is_empty();
                let remaining =
                    if is_whole { self.objects.len() - looked_at } else { rows.count() };
                let last_key = (remaining > 0).then(|| key.clone());
                return Page { objects, revision, last_key, remaining };
            }
        }
        Page { objects, revision, last_key: None, remaining: 0 }
    }
}

type Row<'a> = (&'a Arc<str>, &'a Arc<Object>);

/// The rows of both, by key; no key is in both.
fn merged<'a>(
    a: impl Iterator<Item = Row<'a>>,
    b: impl Iterator<Item = Row<'a>>,
) -> impl Iterator<Item = Row<'a>> {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    std::iter::from_fn(move || match (a.peek(), b.peek()) {
        (Some((first, _)), Some((second, _))) if second < first => b.next(),
        (Some(_), _) => a.next(),
        (None, _) => b.next(),
    })
}

/// Bytes an entry keeps alive that the present state does not need.
fn weight(event: &Event) -> usize {
    event.old.as_ref().map_or(64, |old| old.json().len() + 256)
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
