//! Values in another form where they are kept: a transformer between the collections and what holds the bytes.
//!
//! Which resources are encrypted and how is the transformer's matter; here is only where it is asked. Encrypted
//! values are known by upstream's prefix, so that a store may hold plain and encrypted values, and values under one
//! key after another.

use std::sync::Arc;

use async_trait::async_trait;

/// What every encrypted value starts with (apiserver `storage/value/encrypt`).
pub const ENCRYPTED: &[u8] = b"k8s:enc:";

/// Names the key that encrypted a value. Values without one are plain.
pub type Stamp = Arc<str>;

/// Where a value is kept.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The key as collections name it, below `/registry/`.
    pub key: &'a str,
    /// The key in the backend, which encryption may be bound to.
    pub authenticated: &'a str,
}

/// A value on its way into the backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub bytes: Vec<u8>,
    pub stamp: Option<Stamp>,
}

/// A value that came out of the backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    pub value: Vec<u8>,
    pub stamp: Option<Stamp>,
}

/// Encrypts values on their way out and decrypts them on their way in (upstream's `value.Transformer`).
#[async_trait]
pub trait Transformer: Send + Sync + std::fmt::Debug {
    /// The form to keep of a value. Never waits.
    fn transform_to_storage(&self, place: Place<'_>, value: Vec<u8>) -> Result<Kept, String>;

    /// The value in what was kept. Never waits: fails when [`Transformer::prepare`] did not get the key.
    fn transform_from_storage(&self, place: Place<'_>, kept: Vec<u8>) -> Result<Opened, String>;

    /// Asks those who have it for the key of a value, so that `transform_from_storage` can open it.
    async fn prepare(&self, place: Place<'_>, kept: &[u8]);

    /// The stamp that a write to this key would get now. A stored value with another one is stale.
    fn write_stamp(&self, key: &str) -> Option<Stamp>;
}

/// How an object in etcd differs from the one that is served, beyond its encoding.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    /// Turns an object into what is kept of it.
    pub written: fn(&mut serde_json::Value),
    /// Turns what was kept into the object.
    pub read: fn(&mut serde_json::Value),
}

impl Default for Form {
    fn default() -> Form {
        Form { written: |_| {}, read: |_| {} }
    }
}
