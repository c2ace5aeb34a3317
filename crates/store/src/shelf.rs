//! The collections, filled from a backend, and what belongs to none of them yet.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use api::Object;

use crate::collection::{Collection, CollectionSpec};
use crate::encrypted::Unreadable;
use crate::engine::{Engine, EngineError, Record};
use crate::transformer::{ENCRYPTED, Form, Kept, Opened, Place, Stamp, Transformer};

/// What keys begin with in the collections.
pub(crate) const OUR_PREFIX: &str = "/registry";
/// Records handed to a worker at once while loading.
const CHUNK: usize = 256;

/// The collections, and what belongs to none of them (yet).
#[derive(Debug)]
pub(crate) struct Shelf {
    collections: Mutex<BTreeMap<String, Arc<Collection>>>,
    unclaimed: Mutex<BTreeMap<String, Record>>,
    pub(crate) current: Arc<AtomicU64>,
    reader: Reader,
    /// Of keys in the backend, without a slash at its end.
    prefix: String,
}

/// Reads a stored value.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pub(crate) decode: fn(&[u8]) -> Result<serde_json::Value, String>,
    pub(crate) form: Form,
    pub(crate) transformer: Option<Arc<dyn Transformer>>,
}

pub(crate) fn decode_json(bytes: &[u8]) -> Result<serde_json::Value, String> {
    serde_json::from_slice(bytes).map_err(|e| e.to_string())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shelf {
    pub(crate) fn new(specs: Vec<CollectionSpec>, reader: Reader, prefix: String) -> Shelf {
        let current = Arc::new(AtomicU64::new(0));
        let collection = |spec: CollectionSpec| {
            let prefix = spec.prefix.clone();
            (prefix, Arc::new(Collection::new(spec, current.clone())))
        };
        let collections = specs.into_iter().map(collection).collect();
        let (collections, unclaimed) = (Mutex::new(collections), Mutex::default());
        Shelf { collections, unclaimed, current, reader, prefix }
    }

    /// The collections, which nobody adds to meanwhile.
    pub(crate) fn collections(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Collection>>> {
        lock(&self.collections)
    }

    pub(crate) fn unclaimed(&self) -> MutexGuard<'_, BTreeMap<String, Record>> {
        lock(&self.unclaimed)
    }

    pub(crate) fn transformer(&self) -> Option<&Arc<dyn Transformer>> {
        self.reader.transformer.as_ref()
    }

    /// The key in the backend of one in the collections.
    pub(crate) fn outer(&self, key: &str) -> String {
        format!("{}{}", self.prefix, key.strip_prefix(OUR_PREFIX).unwrap_or(key))
    }

    /// The key in the collections of one in the backend.
    pub(crate) fn inner(&self, key: &str) -> Option<String> {
        Some(format!("{OUR_PREFIX}{}", key.strip_prefix(&self.prefix)?))
    }

    /// The stored form of a value of this key.
    pub(crate) fn kept(&self, key: &str, value: Vec<u8>) -> Result<Kept, String> {
        match self.transformer() {
            None => Ok(Kept { bytes: value, stamp: None }),
            Some(transformer) => transformer
                .transform_to_storage(Place { key, authenticated: &self.outer(key) }, value),
        }
    }

    /// Gets the key that a record's value needs, from whoever has it.
    pub(crate) async fn prepare(&self, record: &Record) {
        let value = record.value.as_deref().unwrap_or_default();
        let Some(transformer) = self.transformer().filter(|_| value.starts_with(ENCRYPTED)) else {
            return;
        };
        let authenticated = self.outer(&record.key);
        transformer.prepare(Place { key: &record.key, authenticated: &authenticated }, value).await;
    }

    fn opened(&self, record: &Record) -> Result<Opened, String> {
        let value = record.value.as_deref().unwrap_or_default();
        match self.transformer() {
            Some(transformer) => {
                let authenticated = self.outer(&record.key);
                let place = Place { key: &record.key, authenticated: &authenticated };
                transformer.transform_from_storage(place, value.to_vec())
            }
            // As a server of upstream without a configuration says it.
            None if value.starts_with(ENCRYPTED) => {
                Err("identity transformer tried to read encrypted data".into())
            }
            None => Ok(Opened { value: value.to_vec(), stamp: None }),
        }
    }

    /// The object that a record holds, and the stamp of its stored form.
    pub(crate) fn object(
        &self,
        collection: &Collection,
        record: &Record,
    ) -> Result<(Object, Option<Stamp>), EngineError> {
        let key = || record.key.clone();
        let opened = self.opened(record);
        let Opened { value, stamp } =
            opened.map_err(|detail| EngineError::Encrypted { key: key(), detail })?;
        let mut value = (self.reader.decode)(&value)
            .map_err(|detail| EngineError::Object { key: key(), detail })?;
        (self.reader.form.read)(&mut value);
        Ok((Object::new(&value, record.revision, collection.spec().selectable), stamp))
    }

    /// Puts a record into its collection, before anyone reads.
    pub(crate) fn restore(&self, record: Record) -> Result<(), EngineError> {
        let found = find(&self.collections(), &record.key).cloned();
        match found {
            Some(collection) => self.restore_into(&collection, record),
            None => {
                self.unclaimed().insert(record.key.clone(), record);
                Ok(())
            }
        }
    }

    fn restore_into(&self, collection: &Collection, record: Record) -> Result<(), EngineError> {
        let key = record.key[collection.spec().prefix.len()..].to_owned();
        match self.object(collection, &record) {
            Ok((object, stamp)) => {
                collection.encrypted.readable(&key, stamp);
                collection.restore(&key, object);
                Ok(())
            }
            Err(EngineError::Encrypted { detail, .. }) => {
                let value = Unreadable { record, reason: detail };
                collection.encrypted.unreadable(&key, value);
                Ok(())
            }
            Err(other) => Err(other),
        }
    }

    /// Tries again to read the values that could not be read. The first that still cannot be, and why.
    pub(crate) async fn reopen(&self) -> Option<(String, String)> {
        let mut left = None;
        // Collections that are added later find the keys at hand.
        let is_encrypted =
            |record: &&Record| record.value.as_deref().unwrap_or_default().starts_with(ENCRYPTED);
        let unclaimed: Vec<Record> =
            self.unclaimed().values().filter(is_encrypted).cloned().collect();
        for record in &unclaimed {
            self.prepare(record).await;
        }
        let collections: Vec<Arc<Collection>> = self.collections().values().cloned().collect();
        for collection in collections {
            let mut revealed = Vec::new();
            for record in collection.encrypted.all_unreadable() {
                self.prepare(&record).await;
                match self.object(&collection, &record) {
                    Ok((object, stamp)) => {
                        let key = record.key[collection.spec().prefix.len()..].to_owned();
                        revealed.push((key, object, stamp));
                    }
                    Err(error) => {
                        left.get_or_insert((record.key, error.to_string()));
                    }
                }
            }
            if !revealed.is_empty() {
                collection.reveal(revealed);
            }
        }
        left
    }

    /// The loaded state is that of `revision`, which collections start from.
    pub(crate) fn start_at(&self, revision: u64) {
        self.current.store(revision, Ordering::Release);
        self.collections().values().for_each(|c| c.set_floor(revision));
    }

    pub(crate) fn register(&self, spec: CollectionSpec) -> Result<Arc<Collection>, EngineError> {
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
        for record in claimed {
            self.restore_into(&collection, record)?;
        }
        collection.set_floor(self.current.load(Ordering::Acquire));
        collections.insert(prefix, collection.clone());
        Ok(collection)
    }

    /// Fills the collections on all cores: parsing is nearly all that opening costs. The last revision.
    pub(crate) fn load(&self, engine: &mut dyn Engine) -> Result<u64, EngineError> {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let (chunks, inbox) = mpsc::sync_channel::<Vec<Record>>(2 * workers);
        let inbox = Mutex::new(inbox);
        let next = || lock(&inbox).recv().ok();
        // A failed worker goes on taking, or the engine would wait for ever.
        let restore = || {
            let each = |outcome: Result<(), EngineError>, record| {
                outcome.and_then(|()| self.restore(record))
            };
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
