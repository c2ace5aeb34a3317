//! What durability must offer: load everything once, then commit batches.

use std::sync::Mutex;

/// One key's change in a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub key: String,
    /// Absent for a deletion.
    pub value: Option<Vec<u8>>,
    pub revision: u64,
}

/// The engine could not read or write.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("open the store at {path}: {detail}")]
    Open { path: String, detail: String },
    #[error("read the store's {path}: {detail}")]
    Read { path: String, detail: String },
    #[error(
        "the store's {path} is damaged: {detail}; nothing was changed; restore the store's folder \
         from a backup, or give up its content with `trireme reset`"
    )]
    Damaged { path: String, detail: String },
    #[error("the stored object {key} cannot be read: {detail}")]
    Object { key: String, detail: String },
    /// Its key cannot be had, or is not the right one.
    #[error("{detail}")]
    Encrypted { key: String, detail: String },
    #[error("write to the store's {path}: {detail}")]
    Commit { path: String, detail: String },
    /// Refused before anything was written; further writes may succeed.
    #[error("no space left for the store at {path}: delete objects, or free space on its disk")]
    Full { path: String },
}

/// What an engine has space for. Each step allows what the later ones do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    Nothing,
    Deletions,
    /// Deletions, and updates that leave an object about as large as it was: finalizers must come
    /// off and deletion times go on before an object can be deleted.
    NoGrowth,
    Plenty,
}

/// A durable map from keys to (revision, value). Used by one thread at a time.
pub trait Engine: Send {
    /// Calls `visit` with every live record, each key once, and returns the last committed
    /// revision.
    fn load(&mut self, visit: &mut dyn FnMut(Record)) -> Result<u64, EngineError>;

    /// What the next commit, of about `bytes`, may consist of.
    fn room(&mut self, _bytes: usize) -> Result<Room, EngineError> {
        Ok(Room::Plenty)
    }

    /// Makes the batch durable before it returns; all of it or nothing. Revisions rise.
    fn commit(&mut self, batch: &[Record]) -> Result<(), EngineError>;

    /// What it takes of the disk, in bytes.
    fn size(&self) -> u64 {
        0
    }

    /// A small step of housekeeping while nobody writes; whether more is to be done.
    fn tidy(&mut self) -> Result<bool, EngineError> {
        Ok(false)
    }
}

/// Keeps nothing: for tests and throw-away servers.
#[derive(Debug, Default)]
pub struct MemoryEngine {
    committed: Mutex<Vec<Record>>,
}

impl Engine for MemoryEngine {
    fn load(&mut self, visit: &mut dyn FnMut(Record)) -> Result<u64, EngineError> {
        let committed = self.committed.get_mut().unwrap_or_else(|p| p.into_inner());
        let last = committed.iter().map(|r| r.revision).max().unwrap_or(0);
        committed.drain(..).for_each(visit);
        Ok(last)
    }

    fn commit(&mut self, _batch: &[Record]) -> Result<(), EngineError> {
        Ok(())
    }
}
