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
    #[error("read the store at {path}: {detail}")]
    Read { path: String, detail: String },
    #[error(
        "the store's record of {key:?} is damaged: {detail}; restore the store's folder from a copy"
    )]
    Damaged { key: String, detail: String },
    #[error("write to the store at {path}: {detail}")]
    Commit { path: String, detail: String },
}

/// A durable map from keys to (revision, value). Used by one thread at a time.
pub trait Engine: Send {
    /// Calls `visit` with every live record, and returns the last committed revision.
    fn load(&mut self, visit: &mut dyn FnMut(Record)) -> Result<u64, EngineError>;

    /// Makes the batch durable before it returns; all of it or nothing. Revisions rise.
    fn commit(&mut self, batch: &[Record]) -> Result<(), EngineError>;
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
