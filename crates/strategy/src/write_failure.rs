//! A failed write as clients see it.

use api::Status;
use api::registry::Resource;
use store::WriteError;

/// A failed write as clients see it.
pub fn write_failure(error: WriteError, row: &Resource, name: &str) -> Status {
    match error {
        WriteError::Conflict(_) => Status::modified(row.group, row.name, name),
        WriteError::Engine(detail) => {
            Status::failure(500, "InternalError", format!("the store could not write: {detail}"))
        }
        WriteError::Encryption(why) => unreadable(&why),
        // Upstream has no reason for it.
        error @ WriteError::TooLarge => Status::failure(500, "", error.to_string()),
        WriteError::Full(detail) => Status::failure(507, "InsufficientStorage", detail),
        WriteError::Unavailable(detail) => Status::unavailable(detail),
        WriteError::Unknown(detail) => Status::timeout(detail),
        WriteError::Closed => Status::unavailable("the server is shutting down"),
    }
}

/// A stored value that cannot be decrypted, or a new one that cannot be encrypted.
pub fn unreadable(why: &str) -> Status {
    Status::failure(500, "InternalError", format!("Internal error occurred: {why}"))
}
