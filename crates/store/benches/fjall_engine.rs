//! fjall behind the store's trait: a log-structured merge tree.
//!
//! A commit appends to one journal and flushes it once. Values are prefixed by their revision.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use store::{Engine, EngineError, Record};

/// The whole state is in memory already: the engine's own read cache would hold it twice.
const CACHE_BYTES: u64 = 1 << 20;
/// Journal size at which memtables are written out and space is given back.
const JOURNAL_BYTES: u64 = 64 << 20;
const MEMTABLE_BYTES: u64 = 4 << 20;
/// Length of the revision in front of a value.
const HEADER: usize = 8;
const REVISION_KEY: &str = "revision";

pub(crate) struct FjallEngine {
    database: Database,
    objects: Keyspace,
    meta: Keyspace,
}

impl FjallEngine {
    pub(crate) fn open(folder: &Path) -> Result<FjallEngine, fjall::Error> {
        let database = Database::builder(folder)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(1)
            .open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let objects = database.keyspace("objects", options)?;
        let meta = database.keyspace("meta", options)?;
        Ok(FjallEngine { database, objects, meta })
    }
}

fn revision_of(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |b| u64::from_be_bytes(*b))
}

impl Engine for FjallEngine {
    fn load(&mut self, visit: &mut dyn FnMut(Record)) -> Result<u64, EngineError> {
        for entry in self.objects.iter() {
            let (key, value) = entry.into_inner().expect("reads");
            let key = String::from_utf8_lossy(&key).into_owned();
            let revision = revision_of(&value);
            visit(Record { key, value: Some(value[HEADER..].to_vec()), revision });
        }
        Ok(self.meta.get(REVISION_KEY).expect("reads").map_or(0, |b| revision_of(&b)))
    }

    fn commit(&mut self, batch: &[Record]) -> Result<(), EngineError> {
        let mut write = self.database.batch().durability(Some(PersistMode::SyncData));
        for record in batch {
            match &record.value {
                Some(value) => {
                    let mut bytes = Vec::with_capacity(HEADER + value.len());
                    bytes.extend_from_slice(&record.revision.to_be_bytes());
                    bytes.extend_from_slice(value);
                    write.insert(&self.objects, record.key.as_str(), bytes);
                }
                None => write.remove(&self.objects, record.key.as_str()),
            }
        }
        if let Some(last) = batch.last() {
            write.insert(&self.meta, REVISION_KEY, last.revision.to_be_bytes());
        }
        write.commit().expect("commits");
        Ok(())
    }
}
