//! The store as its users see it: collections that show one state, and writes to it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use api::{Draft, Object};
use async_trait::async_trait;

use crate::collection::{Collection, CollectionSpec};
use crate::engine::{Engine, EngineError};
use crate::etcd::{Etcd, EtcdOptions};
use crate::shelf::{OUR_PREFIX, Reader, Shelf, decode_json};
use crate::transformer::{Form, Stamp, Transformer};
use crate::writer::Embedded;

/// How long a start waits for those who have the keys of encrypted values.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two tries to read the values that could not be read (upstream asks a failing provider as often).
const RETRY: Duration = Duration::from_secs(10);
const FIRST_RETRY: Duration = Duration::from_millis(250);

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
    /// The object is larger than the backend takes (etcd's `--max-request-bytes`); nothing was written.
    #[error("etcdserver: request is too large")]
    TooLarge,
    /// The backend cannot be reached; nothing was written.
    #[error("{0}")]
    Unavailable(String),
    /// The backend did not answer: whether this was written is unknown.
    #[error("{0}")]
    Unknown(String),
    /// The value cannot be encrypted now, or the present one cannot be decrypted; nothing was written.
    #[error("{0}")]
    Encryption(String),
    #[error("the store is shutting down")]
    Closed,
}

/// Where the state is kept, below the collections that show it. Whatever it is, a write is
/// answered when it is durable and visible, and conditional on what was seen.
#[async_trait]
pub(crate) trait Backend: Send + Sync + std::fmt::Debug {
    /// With a lifetime the key goes by itself after that time, if [`Backend::is_shared`].
    async fn write(
        &self,
        write: Write,
        lifetime: Option<Duration>,
    ) -> Result<Arc<Object>, WriteError>;

    /// May others write, too? Then it also counts lifetimes.
    fn is_shared(&self) -> bool;

    /// What the state takes of this machine's disk, in bytes; `None` where it is elsewhere.
    fn size(&self) -> Option<u64> {
        None
    }

    /// Resolves when the collections show all that was acknowledged to anyone before.
    async fn catch_up(&self) -> Result<(), WriteError>;

    /// Finishes what was accepted; later writes fail with `Closed`.
    async fn close(&self);
}

/// All collections and their backend. Clones share them.
#[derive(Debug, Clone)]
pub struct Store {
    shelf: Arc<Shelf>,
    backend: Arc<dyn Backend>,
}

impl Store {
    /// Loads everything from `engine` and starts the writer thread, which ends with the last clone.
    pub fn open(engine: Box<dyn Engine>, specs: Vec<CollectionSpec>) -> Result<Store, EngineError> {
        Store::open_with(engine, specs, None)
    }

    /// As [`Store::open`], with values that pass a transformer. Values whose keys somebody else has are not
    /// readable before [`Store::read_encrypted`].
    pub fn open_with(
        mut engine: Box<dyn Engine>,
        specs: Vec<CollectionSpec>,
        transformer: Option<Arc<dyn Transformer>>,
    ) -> Result<Store, EngineError> {
        let reader = Reader { decode: decode_json, form: Form::default(), transformer };
        let shelf = Arc::new(Shelf::new(specs, reader, OUR_PREFIX.to_owned()));
        let revision = shelf.load(&mut *engine)?;
        // Revision 0 means "unset" to clients, so the first state is at 1.
        shelf.start_at(revision.max(1));
        let backend = Arc::new(Embedded::start(engine, shelf.clone())?);
        Ok(Store { shelf, backend })
    }

    /// Loads everything from an etcd and follows it; others may write to it too.
    pub async fn connect(
        options: EtcdOptions,
        specs: Vec<CollectionSpec>,
    ) -> Result<Store, EngineError> {
        let transformer = options.transformer.clone();
        let reader = Reader { decode: crate::etcd::decode, form: options.form, transformer };
        let shelf = Arc::new(Shelf::new(specs, reader, options.full_prefix()));
        let (etcd, records, revision) = Etcd::connect(options, shelf.clone()).await?;
        records.into_iter().try_for_each(|record| shelf.restore(record))?;
        shelf.start_at(revision);
        etcd.follow(revision);
        Ok(Store { shelf, backend: Arc::new(etcd) })
    }

    /// Gets the keys of values that could not be read when they were loaded. Those whose keys are not to be had
    /// within a while stay unreadable; [`Store::keep_reading_encrypted`] goes on.
    pub async fn read_encrypted(&self) {
        let until = tokio::time::Instant::now() + PATIENCE;
        let mut left = self.shelf.reopen().await;
        while left.is_some() && tokio::time::Instant::now() < until {
            tokio::time::sleep(FIRST_RETRY).await;
            left = self.shelf.reopen().await;
        }
        if let Some((key, reason)) = left {
            tracing::error!(key, reason, "stored objects cannot be read, this one among them");
        }
    }

    /// Tries for ever to read the values that could not be read.
    pub async fn keep_reading_encrypted(&self) {
        loop {
            tokio::time::sleep(RETRY).await;
            if let Some((key, reason)) = self.shelf.reopen().await {
                tracing::warn!(key, reason, "stored objects cannot be read, this one among them");
            }
        }
    }

    /// Whether the stored form of this object is not the one that a write would give it now (upstream's `stale`):
    /// a write that changes nothing is to be made all the same.
    pub fn is_stale(&self, collection: &Collection, key: &str) -> bool {
        let Some(transformer) = self.shelf.transformer() else { return false };
        let full = format!("{}{key}", collection.spec().prefix);
        transformer.write_stamp(&full) != collection.encrypted.stamp(key)
    }

    /// The stamps of all stored objects, each once.
    pub fn stamps(&self) -> Vec<Stamp> {
        let collections = self.shelf.collections();
        let all: BTreeSet<Stamp> =
            collections.values().flat_map(|collection| collection.encrypted.stamps()).collect();
        all.into_iter().collect()
    }

    /// Adds a collection, with what was loaded for it; returns the one that is already there.
    pub fn register(&self, spec: CollectionSpec) -> Result<Arc<Collection>, EngineError> {
        self.shelf.register(spec)
    }

    pub fn collection(&self, prefix: &str) -> Option<Arc<Collection>> {
        self.shelf.collections().get(prefix).cloned()
    }

    /// The last published revision.
    pub fn revision(&self) -> u64 {
        self.shelf.current.load(Ordering::Acquire)
    }

    /// Writes, and waits until it is durable and visible: the object as of its revision (for a
    /// deletion, its last state as of the deletion).
    pub async fn write(&self, write: Write) -> Result<Arc<Object>, WriteError> {
        self.backend.write(write, None).await
    }

    /// Writes what goes by itself `lifetime` (seconds count) after its last write, or up to a
    /// minute later. Only where [`Store::is_shared`]; elsewhere it stays until somebody deletes it.
    pub async fn write_for(
        &self,
        write: Write,
        lifetime: Duration,
    ) -> Result<Arc<Object>, WriteError> {
        self.backend.write(write, Some(lifetime)).await
    }

    /// Whether other servers may write to the same state.
    pub fn is_shared(&self) -> bool {
        self.backend.is_shared()
    }

    /// What the state takes of this machine's disk, in bytes; `None` where it is elsewhere.
    pub fn size(&self) -> Option<u64> {
        self.backend.size()
    }

    /// Resolves when reads show all that was acknowledged to anyone before this call: at once,
    /// unless other servers share the state.
    pub async fn catch_up(&self) -> Result<(), WriteError> {
        self.backend.catch_up().await
    }

    /// Lets go of the history before `revision`: later lists of it are refused (410), as after a
    /// compaction of etcd.
    pub fn forget_before(&self, revision: u64) {
        for collection in self.shelf.collections().values() {
            collection.forget(revision);
        }
    }

    /// Commits what is queued and lets go of the state; later writes fail with `Closed`.
    pub async fn close(&self) {
        self.backend.close().await;
    }
}
