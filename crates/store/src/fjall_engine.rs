//! The embedded engine: fjall, a log-structured store.
//!
//! A commit appends to one journal and flushes it once, whatever the number of records. Values are
//! prefixed by their revision.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::engine::{Engine, EngineError, Record};

/// The whole state is in memory already: the engine's own read cache would hold it twice.
const CACHE_BYTES: u64 = 1 << 20;
/// Journal size at which memtables are written out and space is given back.
const JOURNAL_BYTES: u64 = 64 << 20;
const MEMTABLE_BYTES: u64 = 4 << 20;
/// Length of the revision in front of a value.
const HEADER: usize = 8;
/// In `meta`: the last committed revision.
const REVISION_KEY: &str = "revision";

/// A database folder.
pub struct FjallEngine {
    database: Database,
    objects: Keyspace,
    meta: Keyspace,
}

impl std::fmt::Debug for FjallEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FjallEngine")
    }
}

impl FjallEngine {
    /// Opens or creates the database in `folder`.
    pub fn open(folder: &Path) -> Result<FjallEngine, EngineError> {
        let failed =
            |detail: String| EngineError::Open { path: folder.display().to_string(), detail };
        let database = Database::builder(folder)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(1)
            .open()
            .map_err(|e| failed(e.to_string()))?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let objects = database.keyspace("objects", options).map_err(|e| failed(e.to_string()))?;
        let meta = database.keyspace("meta", options).map_err(|e| failed(e.to_string()))?;
        Ok(FjallEngine { database, objects, meta })
    }

    fn last_revision(&self) -> Result<u64, EngineError> {
        let stored = self.meta.get(REVISION_KEY).map_err(|e| EngineError::Read(e.to_string()))?;
        match stored {
            None => Ok(0),
            Some(bytes) => revision_of(REVISION_KEY, &bytes),
        }
    }
}

fn revision_of(key: &str, bytes: &[u8]) -> Result<u64, EngineError> {
    match bytes.first_chunk::<HEADER>() {
        Some(header) => Ok(u64::from_be_bytes(*header)),
        None => Err(EngineError::Damaged {
            key: key.into(),
            detail: format!("{} bytes, too short for a revision", bytes.len()),
        }),
    }
}

impl Engine for FjallEngine {
    fn load(&mut self, visit: &mut dyn FnMut(Record)) -> Result<u64, EngineError> {
        for entry in self.objects.iter() {
            let (key, value) = entry.into_inner().map_err(|e| EngineError::Read(e.to_string()))?;
            let key = String::from_utf8_lossy(&key).into_owned();
            let revision = revision_of(&key, &value)?;
            visit(Record { key, value: Some(value[HEADER..].to_vec()), revision });
        }
        self.last_revision()
    }

    fn commit(&mut self, batch: &[Record]) -> Result<(), EngineError> {
        let failed = |e: fjall::Error| EngineError::Commit(e.to_string());
        let mut write = self.database.batch();
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
        write.commit().map_err(failed)?;
        self.database.persist(PersistMode::SyncData).map_err(failed)
    }
}
