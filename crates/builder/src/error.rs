//! What can go wrong: a mistake in the Dockerfile, named with its line, or the machine's.

use std::io;
use std::path::{Path, PathBuf};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A mistake in the Dockerfile, or a step of it that failed.
    #[error(transparent)]
    Dockerfile(#[from] dockerfile::Error),
    #[error("{}", .0.chain())]
    Runtime(#[from] runtime::Error),
    #[error("cannot {what} {}: {source}", path.display())]
    File { what: &'static str, path: PathBuf, source: io::Error },
    /// A step that cannot be done as it is asked.
    #[error("{message}")]
    Refused { message: String, fix: Option<String> },
}

impl Error {
    pub(crate) fn refused(message: impl Into<String>) -> Error {
        Error::Refused { message: message.into(), fix: None }
    }

    pub(crate) fn with_fix(self, text: impl Into<String>) -> Error {
        match self {
            Error::Refused { message, .. } => Error::Refused { message, fix: Some(text.into()) },
            other => other,
        }
    }

    /// Names the instruction that failed.
    pub(crate) fn in_step(self, file: &str, line: usize) -> Error {
        let error = match self {
            Error::Dockerfile(error) => error,
            Error::Refused { message, fix } => {
                dockerfile::Error { fix, ..dockerfile::Error::new(message) }
            }
            other => dockerfile::Error::new(other.to_string()),
        };
        Error::Dockerfile(error.at_line(line).in_file(file))
    }
}

/// Names the operation and the path of an I/O error.
pub(crate) trait IoContext<T> {
    fn at(self, what: &'static str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn at(self, what: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|e| Error::File { what, path: path.as_ref().to_owned(), source: e.into() })
    }
}
