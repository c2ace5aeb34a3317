//! The embedded engine: fjall, a log-structured store.
//!
//! A commit appends to one journal and flushes it once, whatever the number of records. It has not
//! been measured against redb and SQLite yet (design.md section 4 asks for it).
//! Values are prefixed by their revision.

use std::path::{Path, PathBuf};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::engine::{Engine, EngineError, Record};
use crate::journal;

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
    folder: PathBuf,
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
        // Before fjall sees them: it cuts a journal off at the first thing it cannot read.
        journal::check(folder).map_err(|e| open_error(folder, e))?;
        Self::open_checked(folder).map_err(|e| open_error(folder, explain(&e)))
    }

    fn open_checked(folder: &Path) -> Result<FjallEngine, fjall::Error> {
        let database = Database::builder(folder)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(1)
            .open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let objects = database.keyspace("objects", options)?;
        let meta = database.keyspace("meta", options)?;
        Ok(FjallEngine { folder: folder.into(), database, objects, meta })
    }

    fn read_error(&self, error: fjall::Error) -> EngineError {
        EngineError::Read { path: self.folder.display().to_string(), detail: explain(&error) }
    }

    fn last_revision(&self) -> Result<u64, EngineError> {
        let stored = self.meta.get(REVISION_KEY).map_err(|e| self.read_error(e))?;
        match stored {
            None => Ok(0),
            Some(bytes) => revision_of(REVISION_KEY, &bytes),
        }
    }
}

fn open_error(folder: &Path, detail: String) -> EngineError {
    EngineError::Open { path: folder.display().to_string(), detail }
}

/// What happened, and the way out.
fn explain(error: &fjall::Error) -> String {
    use fjall::Error;
    let damaged = "restore the folder from a copy, or move it away to start empty";
    match error {
        Error::Locked => "another process has it open; stop that one first".into(),
        Error::Poisoned => {
            "an earlier write or a background flush failed; see to the disk, then restart".into()
        }
        Error::Io(e) => explain_io(e),
        Error::Storage(fjall::LsmError::Io(e)) => explain_io(e),
        Error::InvalidVersion(_) => format!("not a store of this version ({error}); {damaged}"),
        other => format!("a file in it is damaged ({other}); {damaged}"),
    }
}

fn explain_io(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    let way_out = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free some space, then restart",
        ErrorKind::PermissionDenied => "give this user read and write access to the folder",
        ErrorKind::NotFound | ErrorKind::UnexpectedEof | ErrorKind::InvalidData => {
            "a file is missing or cut off; restore the folder from a copy"
        }
        _ => "check the disk and the path, then restart",
    };
    format!("{error}; {way_out}")
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
            let (key, value) = entry.into_inner().map_err(|e| self.read_error(e))?;
            let key = String::from_utf8_lossy(&key).into_owned();
            let revision = revision_of(&key, &value)?;
            visit(Record { key, value: Some(value[HEADER..].to_vec()), revision });
        }
        self.last_revision()
    }

    fn commit(&mut self, batch: &[Record]) -> Result<(), EngineError> {
        // With the flush inside, a failed one poisons the database: fjall then refuses to go on.
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
        write.commit().map_err(|e| EngineError::Commit {
            path: self.folder.display().to_string(),
            detail: explain(&e),
        })
    }
}
