//! The one writer: gives every write its revision, commits in groups, then publishes.
//!
//! A write is acknowledged after the flush that made it durable, and becomes visible only then.
//! While one group is flushed the next one gathers, so throughput grows with concurrency.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use api::{Draft, Object};
use tokio::sync::oneshot;

use crate::collection::{Collection, CollectionSpec, Event};
use crate::engine::{Engine, EngineError, Record, Room};

/// Writes committed together at most: bounds the latency of the first of them.
const GROUP_MAX: usize = 512;
/// Bytes after which a group takes no more writes, for the same reason.
const GROUP_BYTES: usize = 2 << 20;
/// Quiet time after which the engine may do housekeeping.
const QUIET: Duration = Duration::from_millis(50);
/// What an update may add while the disk is full: a deletion time, a condition.
const SMALL_GROWTH: usize = 1024;

/// What must be true of the key for the write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// It does not exist.
    Absent,
    /// Its last change was this revision.
    Revision(u64),
}

/// One write: `draft` is the new state, absent for a deletion.
#[derive(Debug)]
pub struct Write {
    pub collection: Arc<Collection>,
    pub key: String,
    pub expect: Expect,
    pub draft: Option<Draft>,
}

/// Why nothing was written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// The expectation does not hold; the present state, if any.
    #[error("the object has changed")]
    Conflict(Option<Arc<Object>>),
    /// The engine failed: nothing of the group was acknowledged, and the store takes no further
    /// writes until it is opened again (reads go on). Whether this group is on disk is unknown;
    /// if so it is there whole.
    #[error("{0}")]
    Engine(String),
    /// There is no space for this write; others, deletions first of all, may succeed.
    #[error("{0}")]
    Full(String),
    #[error("the store is shutting down")]
    Closed,
}

struct Job {
    write: Write,
    reply: oneshot::Sender<Result<Arc<Object>, WriteError>>,
}

enum Message {
    Write(Box<Job>),
    /// Answered when everything before it is committed and the engine is closed.
    Close(oneshot::Sender<()>),
}

/// All collections and their writer. Clones share them.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    collections: Mutex<BTreeMap<String, Arc<Collection>>>,
    /// Loaded records whose collection is not registered (yet).
    unclaimed: Mutex<Vec<Record>>,
    current: Arc<AtomicU64>,
    jobs: mpsc::Sender<Message>,
}

impl Store {
    /// Loads everything from `engine` and starts the writer thread, which ends with the last clone.
    pub fn open(
        mut engine: Box<dyn Engine>,
        specs: Vec<CollectionSpec>,
    ) -> Result<Store, EngineError> {
        let current = Arc::new(AtomicU64::new(0));
        let mut collections = BTreeMap::new();
        for spec in specs {
            let prefix = spec.prefix.clone();
            collections.insert(prefix, Arc::new(Collection::new(spec, current.clone())));
        }
        let (revision, unclaimed) = load(&mut *engine, &collections)?;
        current.store(revision, Ordering::Release);
        collections.values().for_each(|c| c.set_floor(revision));
        let (jobs, inbox) = mpsc::channel();
        let shared = Shared {
            collections: Mutex::new(collections),
            unclaimed: Mutex::new(unclaimed),
            current: current.clone(),
            jobs,
        };
        let store = Store { shared: Arc::new(shared) };
        let writer = Writer { engine, current, revision, failed: None, untidy: true };
        let spawned =
            std::thread::Builder::new().name("store writer".into()).spawn(|| writer.run(inbox));
        spawned.map_err(|e| EngineError::Open {
            path: "writer thread".into(),
            detail: e.to_string(),
        })?;
        Ok(store)
    }

    /// Adds a collection, with what was loaded for it; returns the one that is already there.
    pub fn register(&self, spec: CollectionSpec) -> Result<Arc<Collection>, EngineError> {
        let mut collections = lock(&self.shared.collections);
        if let Some(known) = collections.get(&spec.prefix) {
            return Ok(known.clone());
        }
        let collection = Arc::new(Collection::new(spec, self.shared.current.clone()));
        let prefix = collection.spec().prefix.clone();
        let claimed = lock(&self.shared.unclaimed)
            .extract_if(.., |r| r.key.starts_with(&prefix))
            .collect::<Vec<_>>();
        claimed.iter().try_for_each(|record| restore(&collection, record))?;
        collection.set_floor(self.revision());
        collections.insert(prefix, collection.clone());
        Ok(collection)
    }

    pub fn collection(&self, prefix: &str) -> Option<Arc<Collection>> {
        lock(&self.shared.collections).get(prefix).cloned()
    }

    /// The last published revision.
    pub fn revision(&self) -> u64 {
        self.shared.current.load(Ordering::Acquire)
    }

    /// Writes, and waits until it is durable and visible: the object as of its revision (for a
    /// deletion, its last state as of the deletion).
    pub async fn write(&self, write: Write) -> Result<Arc<Object>, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.shared
            .jobs
            .send(Message::Write(Box::new(Job { write, reply })))
            .map_err(|_| WriteError::Closed)?;
        answer.await.map_err(|_| WriteError::Closed)?
    }

    /// Commits what is queued and closes the engine; later writes fail with `Closed`.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.shared.jobs.send(Message::Close(done)).is_ok() {
            // An error means the writer had ended already, which is what was asked for.
            drop(closed.await);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts every record into its collection; the last revision, and the records of none.
fn load(
    engine: &mut dyn Engine,
    collections: &BTreeMap<String, Arc<Collection>>,
) -> Result<(u64, Vec<Record>), EngineError> {
    let (mut unclaimed, mut fault) = (Vec::new(), None);
    let revision = engine.load(&mut |record| {
        let up_to = (Bound::Unbounded, Bound::Included(record.key.as_str()));
        let nearest = collections.range::<str, _>(up_to).next_back();
        match nearest.filter(|(prefix, _)| record.key.starts_with(*prefix)) {
            None => unclaimed.push(record),
            Some((_, collection)) => {
                if let Err(error) = restore(collection, &record) {
                    fault = Some(error);
                }
            }
        }
    })?;
    // Revision 0 means "unset" to clients, so the first state is at 1.
    fault.map_or(Ok((revision.max(1), unclaimed)), Err)
}

fn restore(collection: &Collection, record: &Record) -> Result<(), EngineError> {
    let bytes = record.value.as_deref().unwrap_or_default();
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| {
        let path = format!("record of {}", record.key);
        EngineError::Damaged { path, detail: e.to_string() }
    })?;
    let object = Object::new(&value, record.revision, collection.spec().selectable);
    collection.restore(&record.key[collection.spec().prefix.len()..], object);
    Ok(())
}

struct Writer {
    engine: Box<dyn Engine>,
    current: Arc<AtomicU64>,
    /// Last revision given out and committed.
    revision: u64,
    /// Set by the first failed commit. What the disk holds of that group is unknown until the
    /// store is opened again, so deciding further writes from memory could hand out its revisions
    /// twice: every later write is refused with the same words.
    failed: Option<String>,
    /// The engine may have housekeeping to do.
    untidy: bool,
}

/// A write that passed its expectation and waits for the flush.
struct Accepted {
    collection: Arc<Collection>,
    event: Event,
    result: Arc<Object>,
    reply: oneshot::Sender<Result<Arc<Object>, WriteError>>,
}

/// States that the group has decided but not published, by collection prefix and key.
type Pending = HashMap<(usize, Arc<str>), Option<Arc<Object>>>;

impl Writer {
    fn run(mut self, inbox: mpsc::Receiver<Message>) {
        while let Some(first) = self.wait(&inbox) {
            let (mut group, mut bytes) = (Vec::new(), 0);
            let mut next = Some(first);
            let mut closing = None;
            while let Some(message) = next {
                match message {
                    Message::Write(job) => {
                        bytes += job.write.draft.as_ref().map_or(0, |d| d.stored().len());
                        group.push(*job);
                    }
                    Message::Close(done) => closing = Some(done),
                }
                let more = group.len() < GROUP_MAX && bytes < GROUP_BYTES && closing.is_none();
                next = if more { inbox.try_recv().ok() } else { None };
            }
            self.commit(group);
            if let Some(done) = closing {
                drop(self);
                // Nobody waiting is as good.
                done.send(()).unwrap_or_default();
                return;
            }
        }
    }

    /// The next message, with housekeeping while there is none; absent when all senders are gone.
    fn wait(&mut self, inbox: &mpsc::Receiver<Message>) -> Option<Message> {
        while self.untidy && self.failed.is_none() {
            match inbox.recv_timeout(QUIET) {
                Ok(message) => return Some(message),
                Err(mpsc::RecvTimeoutError::Disconnected) => return None,
                Err(mpsc::RecvTimeoutError::Timeout) => self.tidy(),
            }
        }
        let message = inbox.recv().ok()?;
        self.untidy = true;
        Some(message)
    }

    /// One step of housekeeping.
    fn tidy(&mut self) {
        match self.engine.tidy() {
            Ok(more) => self.untidy = more,
            // Tried again after the next write.
            Err(EngineError::Full { .. }) => self.untidy = false,
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&mut self, error: &EngineError) {
        tracing::error!(%error, "the store takes no more writes");
        self.failed = Some(error.to_string());
    }

    /// What the engine has space for.
    fn room(&mut self, group: &[Job]) -> Result<Room, WriteError> {
        if let Some(reason) = &self.failed {
            return Err(WriteError::Engine(reason.clone()));
        }
        let size = |job: &Job| {
            job.write.key.len() + job.write.draft.as_ref().map_or(64, |d| d.stored().len() + 64)
        };
        match self.engine.room(group.iter().map(size).sum()) {
            Ok(room) => Ok(room),
            Err(error) => {
                self.fail(&error);
                Err(WriteError::Engine(error.to_string()))
            }
        }
    }

    fn commit(&mut self, group: Vec<Job>) {
        let room = match self.room(&group) {
            Ok(room) => room,
            Err(refusal) => {
                // A requester may be gone.
                group.into_iter().for_each(|job| drop(job.reply.send(Err(refusal.clone()))));
                return;
            }
        };
        let (mut pending, mut accepted, mut batch) = (Pending::new(), Vec::new(), Vec::new());
        let mut revision = self.revision;
        for Job { write, reply } in group {
            match decide(write, revision + 1, &pending, room) {
                Err(refusal) => drop(reply.send(Err(refusal))),
                Ok((collection, event, record)) => {
                    revision += 1;
                    let slot = (Arc::as_ptr(&collection) as usize, event.key.clone());
                    pending.insert(slot, event.new.clone());
                    batch.push(record);
                    let result = outcome(&event);
                    accepted.push(Accepted { collection, event, result, reply });
                }
            }
        }
        if batch.is_empty() {
            return;
        }
        match self.engine.commit(&batch) {
            Ok(()) => self.publish(accepted, revision),
            Err(error @ EngineError::Full { .. }) => {
                refuse(accepted, &WriteError::Full(error.to_string()));
            }
            Err(error) => {
                refuse(accepted, &WriteError::Engine(error.to_string()));
                self.fail(&error);
            }
        }
    }

    fn publish(&mut self, accepted: Vec<Accepted>, revision: u64) {
        self.revision = revision;
        let mut batches: Vec<(Arc<Collection>, Vec<Event>)> = Vec::new();
        let mut replies = Vec::with_capacity(accepted.len());
        for Accepted { collection, event, result, reply } in accepted {
            match batches.iter_mut().find(|(c, _)| Arc::ptr_eq(c, &collection)) {
                Some((_, events)) => events.push(event),
                None => batches.push((collection, vec![event])),
            }
            replies.push((reply, result));
        }
        // A fixed order of locks, so that two publications could never wait for each other.
        batches.sort_by_key(|(c, _)| Arc::as_ptr(c) as usize);
        Collection::publish(&batches, revision);
        debug_assert_eq!(self.current.load(Ordering::Acquire), revision);
        for (reply, result) in replies {
            // The requester may be gone; the write stands.
            drop(reply.send(Ok(result)));
        }
    }
}

fn refuse(accepted: Vec<Accepted>, reason: &WriteError) {
    tracing::error!(%reason, writes = accepted.len(), "nothing of this group was stored");
    accepted.into_iter().for_each(|a| drop(a.reply.send(Err(reason.clone()))));
}

fn outcome(event: &Event) -> Arc<Object> {
    match (&event.new, &event.old) {
        (Some(new), _) => new.clone(),
        (None, Some(old)) => Arc::new(old.at(event.revision)),
        (None, None) => unreachable!("a deletion expects a revision, so there is an old state"),
    }
}

fn decide(
    write: Write,
    revision: u64,
    pending: &Pending,
    room: Room,
) -> Result<(Arc<Collection>, Event, Record), WriteError> {
    let Write { collection, key, expect, draft } = write;
    let key: Arc<str> = key.into();
    let slot = (Arc::as_ptr(&collection) as usize, key.clone());
    let old = match pending.get(&slot) {
        Some(decided) => decided.clone(),
        None => collection.get(&key),
    };
    let holds = match (expect, &old) {
        (Expect::Absent, None) => draft.is_some(),
        (Expect::Revision(r), Some(object)) => object.revision() == r,
        _ => false,
    };
    if !holds {
        return Err(WriteError::Conflict(old));
    }
    if needs(draft.as_ref(), old.as_deref()) > room {
        return Err(WriteError::Full(full_disk(room)));
    }
    let record = Record {
        key: format!("{}{key}", collection.spec().prefix),
        value: draft.as_ref().map(|d| d.stored().to_vec()),
        revision,
    };
    let new = draft.map(|d| Arc::new(d.at(revision)));
    Ok((collection, Event { revision, key, old, new }, record))
}

/// The least room in which this write may be done.
fn needs(draft: Option<&Draft>, old: Option<&Object>) -> Room {
    match (draft, old) {
        (None, _) => Room::Deletions,
        (Some(new), Some(old)) if new.stored().len() <= old.json().len() + SMALL_GROWTH => {
            Room::NoGrowth
        }
        _ => Room::Plenty,
    }
}

fn full_disk(room: Room) -> String {
    let still = match room {
        Room::Plenty | Room::NoGrowth => "objects can be deleted, but neither created nor grow",
        Room::Deletions => "objects can only be deleted",
        Room::Nothing => "nothing can be written",
    };
    format!("the store's disk is full: {still} until there is space on it")
}

#[cfg(test)]
mod tests;
