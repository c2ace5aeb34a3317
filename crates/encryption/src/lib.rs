//! Encryption at rest: upstream's `EncryptionConfiguration` with all of its providers, and values in its stored
//! form, so that either server reads what the other wrote.
//!
//! A resource's first provider writes; all of them read. A key is rotated by putting a new one first, letting every
//! server read the file, rewriting the objects, and taking the old one out. [`Encryption`] is the transformer that
//! the store asks; it follows its file when it is told to ([`Encryption::follow`]). KMS v2 providers are asked
//! beforehand for the keys they keep (`kms`), so that no read or write of the store waits for one.

mod aes;
mod config;
mod encryption;
mod failures;
mod follow;
mod hash;
mod kms;
mod metrics;
mod provider;
mod resources;
mod rules;
mod secretbox;

pub use config::{Configuration, generate};
pub use encryption::Encryption;
pub use follow::read;

/// Why a configuration cannot be used, or a value not be transformed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EncryptionError(pub(crate) String);

pub(crate) fn fault(text: impl Into<String>) -> EncryptionError {
    EncryptionError(text.into())
}
