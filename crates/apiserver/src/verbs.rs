//! One handler per verb; none of them names a kind.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod options;
pub(crate) mod patch;
pub(crate) mod update;
pub(crate) mod watch;

use std::sync::Arc;

use api::{Object, Status};
use serde_json::Value;
use store::WriteError;

/// What a handler found, before it is put into the form the client asked for.
#[derive(Debug)]
pub(crate) enum Answer {
    /// One stored object.
    Object {
        code: u16,
        object: Arc<Object>,
    },
    /// One object that is not stored as such: dry runs, reviews, scales, statuses.
    Tree {
        code: u16,
        value: Value,
    },
    List(list::Listing),
    Watch(watch::Watching),
}

/// A failed write as clients see it.
pub(crate) fn write_failure(
    error: WriteError,
    row: &api::registry::Resource,
    name: &str,
) -> Status {
    match error {
        WriteError::Conflict(_) => Status::modified(row.group, row.name, name),
        WriteError::Engine(detail) => {
            Status::failure(500, "InternalError", format!("the store could not write: {detail}"))
        }
        // Upstream has no reason for it.
        error @ WriteError::TooLarge => Status::failure(500, "", error.to_string()),
        WriteError::Full(detail) => Status::failure(507, "InsufficientStorage", detail),
        WriteError::Unavailable(detail) => Status::unavailable(detail),
        WriteError::Unknown(detail) => Status::timeout(detail),
        WriteError::Closed => Status::unavailable("the server is shutting down"),
    }
}
