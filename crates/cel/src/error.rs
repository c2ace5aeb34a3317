//! What goes wrong while an expression runs.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// A fault in the data or the arguments, in upstream's words: an expression's value like any
/// other, that `&&` and `||` may make up for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(Arc<str>);

impl Error {
    pub(crate) fn new(message: impl Into<Cow<'static, str>>) -> Error {
        Error(message.into().into())
    }

    pub(crate) fn no_overload() -> Error {
        Error::new("no such overload")
    }

    pub(crate) fn no_key(key: &dyn fmt::Display) -> Error {
        Error::new(format!("no such key: {key}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Why there is no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    Error(Error),
    /// The limit of one call was reached.
    CostExceeded,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Error(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Error(error) => error.fmt(f),
            Failure::CostExceeded => f.write_str("operation cancelled: actual cost limit exceeded"),
        }
    }
}
