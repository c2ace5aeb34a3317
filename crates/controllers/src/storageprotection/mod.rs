//! Storage protection: claims, volumes and volume attributes classes that are in use stay until
//! they no longer are, by a finalizer each.
//!
//! Admission puts the finalizers on new objects. The three controllers here put them on older ones,
//! and take them off objects that are to be deleted and that nothing uses.

mod claims;
mod classes;
mod plan;
#[cfg(test)]
mod tests;
mod volumes;

use client::{Action, Client, Error, Patch, Resource};

pub(crate) use self::claims::start as start_claims;
pub(crate) use self::classes::start as start_classes;
pub(crate) use self::volumes::start as start_volumes;
use crate::meta::{name, namespace};

/// Objects settled at once by each of the controllers.
const WORKERS: usize = 4;

/// Gives an object the finalizers it should have, provided it is still as it was seen.
async fn settle<K: Resource>(
    client: &Client,
    object: &K,
    finalizer: &str,
    used: bool,
) -> Result<Action, Error> {
    let meta = object.metadata();
    let Some(metadata) = plan::change(meta, finalizer, used) else { return Ok(Action::Done) };
    let patch = Patch::Merge(serde_json::json!({"metadata": metadata}));
    match client.patch::<K>(namespace(meta), name(meta), &patch).await {
        Err(error) if error.is_not_found() => Ok(Action::Done),
        other => other.map(|_| Action::Done),
    }
}
