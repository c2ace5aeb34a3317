//! The store as its users see it: collections that show one state, and writes to it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use api::{Draft, Object};
use async_trait::async_trait;

use crate::collection::{Collection, CollectionSpec};
use crate::engine::{Engine, EngineError, Record};
use crate::etcd::{Etcd, EtcdOptions, Form};
use crate::writer::Embedded;

/// Records handed to a worker at once while loading.
const CHUNK: usize = 256;

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

/// The collections, and what belongs to none of them (yet).
#[derive(Debug)]
pub(crate) struct Shelf {
    collections: Mutex<BTreeMap<String, Arc<Collection>>>,
    unclaimed: Mutex<BTreeMap<String, Record>>,
    pub(crate) current: Arc<AtomicU64>,
    reader: Reader,
}

/// Reads a stored value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader {
    pub(crate) decode: fn(&[u8]) -> Result<serde_json::Value, String>,
    pub(crate) form: Form,
}

fn decode_json(bytes: &[u8]) -> Result<serde_json::Value, String> {
    serde_json::from_slice(bytes).map_err(|e| e.to_string())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shelf {
    pub(crate) fn new(specs: Vec<CollectionSpec>, reader: Reader) -> Shelf {
        let current = Arc::new(AtomicU64::new(0));
        let collection = |spec: CollectionSpec| {
            let prefix = spec.prefix.clone();
            (prefix, Arc::new(Collection::new(spec, current.clone())))
        };
        let collections = specs.into_iter().map(collection).collect();
        Shelf { collections: Mutex::new(collections), unclaimed: Mutex::default(), current, reader }
    }

    /// The collections, which nobody adds to meanwhile.
    pub(crate) fn collections(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Collection>>> {
        lock(&self.collections)
    }

    pub(crate) fn unclaimed(&self) -> MutexGuard<'_, BTreeMap<String, Record>> {
        lock(&self.unclaimed)
    }

    pub(crate) fn object(
        &self,
        collection: &Collection,
        record: &Record,
    ) -> Result<Object, EngineError> {
        let bytes = record.value.as_deref().unwrap_or_default();
        let mut value = (self.reader.decode)(bytes)
            .map_err(|detail| EngineError::Object { key: record.key.clone(), detail })?;
        (self.reader.form.read)(&mut value);
        Ok(Object::new(&value, record.revision, collection.spec().selectable))
    }

    /// Puts a record into its collection, before anyone reads.
    fn restore(&self, record: Record) -> Result<(), EngineError> {
        let found = find(&self.collections(), &record.key).cloned();
        let Some(collection) = found else {
            self.unclaimed().insert(record.key.clone(), record);
            return Ok(());
        };
        let object = self.object(&collection, &record)?;
        collection.restore(&record.key[collection.spec().prefix.len()..], object);
        Ok(())
    }

    /// The loaded state is that of `revision`, which collections start from.
    fn start_at(&self, revision: u64) {
        self.current.store(revision, Ordering::Release);
        self.collections().values().for_each(|c| c.set_floor(revision));
    }

    fn register(&self, spec: CollectionSpec) -> Result<Arc<Collection>, EngineError> {
        let mut collections = self.collections();
        if let Some(known) = collections.get(&spec.prefix) {
            return Ok(known.clone());
        }
        let collection = Arc::new(Collection::new(spec, self.current.clone()));
        let prefix = collection.spec().prefix.clone();
        let claimed: Vec<Record> = self
            .unclaimed()
            .extract_if(.., |key, _| key.starts_with(&prefix))
            .map(|(_, r)| r)
            .collect();
        for record in &claimed {
            collection.restore(&record.key[prefix.len()..], self.object(&collection, record)?);
        }
        collection.set_floor(self.current.load(Ordering::Acquire));
        collections.insert(prefix, collection.clone());
        Ok(collection)
    }
}

/// Fills the collections on all cores: parsing is nearly all that opening costs. The last revision.
fn load(engine: &mut dyn Engine, shelf: &Shelf) -> Result<u64, EngineError> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let (chunks, inbox) = mpsc::sync_channel::<Vec<Record>>(2 * workers);
    let inbox = Mutex::new(inbox);
    let next = || lock(&inbox).recv().ok();
    // A failed worker goes on taking, or the engine would wait for ever.
    let restore = || {
        let each =
            |outcome: Result<(), EngineError>, record| outcome.and_then(|()| shelf.restore(record));
        std::iter::from_fn(next).flatten().fold(Ok(()), each)
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(restore)).collect();
        let mut chunk = Vec::new();
        let revision = engine.load(&mut |record| {
            chunk.push(record);
            if chunk.len() == CHUNK {
                give(&chunks, std::mem::take(&mut chunk));
            }
        });
        give(&chunks, chunk);
        drop(chunks);
        for worker in workers {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        revision
    })
}

fn give(chunks: &mpsc::SyncSender<Vec<Record>>, chunk: Vec<Record>) {
    chunks.send(chunk).expect("the receiver outlives the workers");
}

/// The collection that a key belongs to.
pub(crate) fn find<'a>(
    collections: &'a BTreeMap<String, Arc<Collection>>,
    key: &str,
) -> Option<&'a Arc<Collection>> {
    let up_to = (Bound::Unbounded, Bound::Included(key));
    let (prefix, collection) = collections.range::<str, _>(up_to).next_back()?;
    key.starts_with(prefix).then_some(collection)
}

impl Store {
    /// Loads everything from `engine` and starts the writer thread, which ends with the last clone.
    pub fn open(
        mut engine: Box<dyn Engine>,
        specs: Vec<CollectionSpec>,
    ) -> Result<Store, EngineError> {
        let shelf =
            Arc::new(Shelf::new(specs, Reader { decode: decode_json, form: Form::default() }));
        let revision = load(&mut *engine, &shelf)?;
        // Revision 0 means "unset" to clients, so the first state is at 1.
        shelf.start_at(revision.max(1));
        let backend = Arc::new(Embedded::start(engine, shelf.current.clone())?);
        Ok(Store { shelf, backend })
    }

    /// Loads everything from an etcd and follows it; others may write to it too.
    pub async fn connect(
        options: EtcdOptions,
        specs: Vec<CollectionSpec>,
    ) -> Result<Store, EngineError> {
        let reader = Reader { decode: crate::etcd::decode, form: options.form };
        let shelf = Arc::new(Shelf::new(specs, reader));
        let (etcd, records, revision) = Etcd::connect(options, shelf.clone()).await?;
        records.into_iter().try_for_each(|record| shelf.restore(record))?;
        shelf.start_at(revision);
        etcd.follow(revision);
        Ok(Store { shelf, backend: Arc::new(etcd) })
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
