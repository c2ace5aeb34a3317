//! The one writer: gives every write its revision, commits in groups, then publishes.
//!
//! A write is acknowledged after the flush that made it durable, and becomes visible only then.
//! While one group is flushed the next one gathers, so throughput grows with concurrency.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use api::{Draft, Object};
use async_trait::async_trait;
use tokio::sync::oneshot;

use crate::collection::{Collection, Event};
use crate::engine::{Engine, EngineError, Record, Room};
use crate::shelf::Shelf;
use crate::store::{Backend, Expect, Write, WriteError};
use crate::transformer::{Form, Kept, Stamp};

/// Writes committed together at most: bounds the latency of the first of them.
const GROUP_MAX: usize = 512;
/// Bytes after which a group takes no more writes, for the same reason.
const GROUP_BYTES: usize = 2 << 20;
/// Quiet time after which the engine may do housekeeping.
const QUIET: Duration = Duration::from_millis(50);
/// What an update may add while the disk is full: a deletion time, a condition.
const SMALL_GROWTH: usize = 1024;

struct Job {
    write: Write,
    /// The stored form of the draft.
    kept: Option<Kept>,
    reply: oneshot::Sender<Result<Arc<Object>, WriteError>>,
}

enum Message {
    Write(Box<Job>),
    /// Answered when everything before it is committed and the engine is closed.
    Close(oneshot::Sender<()>),
}

/// The way to the writer thread, which ends with it.
#[derive(Debug)]
pub(crate) struct Embedded {
    jobs: mpsc::Sender<Message>,
    shelf: Arc<Shelf>,
    size: Arc<AtomicU64>,
}

impl Embedded {
    pub(crate) fn start(
        engine: Box<dyn Engine>,
        shelf: Arc<Shelf>,
    ) -> Result<Embedded, EngineError> {
        let (jobs, inbox) = mpsc::channel();
        let current = shelf.current.clone();
        let revision = current.load(Ordering::Acquire);
        let size = Arc::new(AtomicU64::new(engine.size()));
        let writer =
            Writer { engine, current, revision, failed: None, untidy: true, size: size.clone() };
        let thread = std::thread::Builder::new().name("store writer".into());
        match thread.spawn(|| writer.run(inbox)) {
            Ok(_) => Ok(Embedded { jobs, shelf, size }),
            Err(e) => {
                Err(EngineError::Open { path: "writer thread".into(), detail: e.to_string() })
            }
        }
    }
}

/// Largest object, in the form in which upstream stores it: etcd's default `--max-request-bytes`.
const OBJECT_MAX: usize = 1536 * 1024;

/// Whether upstream could not store the object. Its own form is hardly ever longer than JSON.
fn is_too_large(json: &[u8]) -> bool {
    json.len() > OBJECT_MAX
        && crate::etcd::encode(json, Form::default()).is_ok_and(|stored| stored.len() > OBJECT_MAX)
}

#[async_trait]
impl Backend for Embedded {
    async fn write(
        &self,
        write: Write,
        _lifetime: Option<Duration>,
    ) -> Result<Arc<Object>, WriteError> {
        if write.draft.as_ref().is_some_and(|draft| is_too_large(draft.stored())) {
            return Err(WriteError::TooLarge);
        }
        // Encrypted here and not by the writer: one value that cannot be must not fail its group.
        let key = || format!("{}{}", write.collection.spec().prefix, write.key);
        let kept = write.draft.as_ref().map(|d| self.shelf.kept(&key(), d.stored().to_vec()));
        let kept = kept.transpose().map_err(WriteError::Encryption)?;
        let (reply, answer) = oneshot::channel();
        self.jobs
            .send(Message::Write(Box::new(Job { write, kept, reply })))
            .map_err(|_| WriteError::Closed)?;
        answer.await.map_err(|_| WriteError::Closed)?
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn size(&self) -> Option<u64> {
        Some(self.size.load(Ordering::Relaxed))
    }

    async fn catch_up(&self) -> Result<(), WriteError> {
        // Nobody else writes, and an acknowledged write is visible already.
        Ok(())
    }

    async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.jobs.send(Message::Close(done)).is_ok() {
            // An error means the writer had ended already, which is what was asked for.
            drop(closed.await);
        }
    }
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
    /// What the engine takes of the disk, for all to read.
    size: Arc<AtomicU64>,
}

/// A write that passed its expectation and waits for the flush.
struct Accepted {
    collection: Arc<Collection>,
    stamp: Option<Stamp>,
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
            self.size.store(self.engine.size(), Ordering::Relaxed);
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
        self.size.store(self.engine.size(), Ordering::Relaxed);
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
            Err(EngineError::Full { .. }) => Ok(Room::Nothing),
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
        for Job { write, kept, reply } in group {
            let (bytes, stamp) = kept.map_or((None, None), |kept| (Some(kept.bytes), kept.stamp));
            match decide(write, bytes, revision + 1, &pending, room) {
                Err(refusal) => drop(reply.send(Err(refusal))),
                Ok((collection, event, record)) => {
                    revision += 1;
                    let slot = (Arc::as_ptr(&collection) as usize, event.key.clone());
                    pending.insert(slot, event.new.clone());
                    batch.push(record);
                    let result = outcome(&event);
                    accepted.push(Accepted { collection, stamp, event, result, reply });
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
        for Accepted { collection, stamp, event, result, reply } in accepted {
            match event.new {
                Some(_) => collection.encrypted.readable(&event.key, stamp),
                None => collection.encrypted.deleted(&event.key),
            }
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
    value: Option<Vec<u8>>,
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
    if let Some(reason) = collection.unreadable(&key) {
        // It is there, whatever it is.
        return Err(match expect {
            Expect::Absent => WriteError::Conflict(None),
            Expect::Revision(_) => WriteError::Encryption(reason),
        });
    }
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
    let record = Record { key: format!("{}{key}", collection.spec().prefix), value, revision };
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
