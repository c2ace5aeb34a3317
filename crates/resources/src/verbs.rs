//! One handler per verb; none of them names a kind.

pub mod create;
pub mod delete;
pub mod get;
pub mod list;
mod metadata;
pub mod options;
pub mod patch;
mod steps;
pub mod update;
pub mod watch;

use std::sync::Arc;

use api::Object;
use serde_json::Value;

/// What a handler found, before it is put into the form the client asked for.
#[derive(Debug)]
pub enum Answer {
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

impl Answer {
    /// The same again, of an answer that has an end.
    pub fn copy(&self) -> Option<Answer> {
        match self {
            Answer::Object { code, object } => {
                Some(Answer::Object { code: *code, object: object.clone() })
            }
            Answer::Tree { code, value } => {
                Some(Answer::Tree { code: *code, value: value.clone() })
            }
            Answer::List(listing) => Some(Answer::List(listing.clone())),
            Answer::Watch(_) => None,
        }
    }
}
