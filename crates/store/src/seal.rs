//! Values that are encrypted where they are kept: a seal between the store and what holds its bytes.
//!
//! Which keys are sealed and how is the caller's; here is only where. Sealed values are known by upstream's
//! mark, so that a store may hold both kinds and one key after another.

use std::sync::Arc;

use crate::engine::{Engine, EngineError, Record, Room};

/// What every sealed value starts with (apiserver `storage/value/encrypt`).
pub const SEALED: &[u8] = b"k8s:enc:";

/// Encrypts values on their way out and decrypts them on their way in.
pub trait Seal: Send + Sync + std::fmt::Debug {
    /// The form to keep of a value; as it is when its key is not to be sealed.
    fn seal(&self, key: &str, value: Vec<u8>) -> Result<Vec<u8>, String>;

    /// What was sealed under this key. Only asked about values that start with [`SEALED`].
    fn open(&self, key: &str, sealed: &[u8]) -> Result<Vec<u8>, String>;
}

/// An engine whose values pass a seal.
#[derive(Debug)]
pub struct SealedEngine<E> {
    engine: E,
    seal: Arc<dyn Seal>,
}

impl<E: Engine> SealedEngine<E> {
    pub fn new(engine: E, seal: Arc<dyn Seal>) -> SealedEngine<E> {
        SealedEngine { engine, seal }
    }
}

impl<E: Engine> Engine for SealedEngine<E> {
    fn load(&mut self, visit: &mut dyn FnMut(Record)) -> Result<u64, EngineError> {
        let seal = self.seal.clone();
        let mut fault = None;
        let revision = self.engine.load(&mut |mut record| {
            let value = record.value.take().map(|value| opened(&*seal, &record.key, value));
            match value.transpose() {
                Ok(value) => visit(Record { value, ..record }),
                Err(detail) => {
                    fault.get_or_insert(EngineError::Object { key: record.key, detail });
                }
            }
        })?;
        fault.map_or(Ok(revision), Err)
    }

    fn room(&mut self, bytes: usize) -> Result<Room, EngineError> {
        self.engine.room(bytes)
    }

    fn commit(&mut self, batch: &[Record]) -> Result<(), EngineError> {
        let sealed = |record: &Record| {
            let value = record.value.clone().map(|value| self.seal.seal(&record.key, value));
            let fault = |detail| EngineError::Object { key: record.key.clone(), detail };
            let value = value.transpose().map_err(fault)?;
            Ok(Record { key: record.key.clone(), value, revision: record.revision })
        };
        let sealed: Result<Vec<Record>, EngineError> = batch.iter().map(sealed).collect();
        self.engine.commit(&sealed?)
    }

    fn tidy(&mut self) -> Result<bool, EngineError> {
        self.engine.tidy()
    }
}

/// A value as it was before it was sealed, if it was.
pub(crate) fn opened(seal: &dyn Seal, key: &str, value: Vec<u8>) -> Result<Vec<u8>, String> {
    match value.starts_with(SEALED) {
        true => seal.open(key, &value),
        false => Ok(value),
    }
}
