//! What can go wrong, named by the operation that failed; the cause is in `source()`.
//!
//! `Error::code` maps each onto the gRPC code that the CRI's clients know.

use std::io;
use std::path::{Path, PathBuf};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{kind} {id:?} not found")]
    NotFound { kind: &'static str, id: String },
    #[error("invalid argument: {0}")]
    Invalid(String),
    #[error("{0}")]
    Precondition(String),
    #[error("not supported: {0}")]
    Unsupported(String),
    #[error("command timed out after {0} s")]
    ExecTimeout(i64),
    #[error("cannot {what} {}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot {what}")]
    Kernel {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("cannot start process: {step}: {source}")]
    Start {
        step: String,
        #[source]
        source: io::Error,
    },
    #[error("supervisor: {0}")]
    Supervisor(String),
    #[error("pod network")]
    Network(#[source] crate::service::NetworkError),
    #[error("image {image:?}: {message}")]
    Image { image: String, message: String },
    #[error("pull {image:?}")]
    Pull {
        image: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("push {image:?}")]
    Push {
        image: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{what} {} is damaged: {message}", path.display())]
    Damaged { what: &'static str, path: PathBuf, message: String },
    /// A foreign runtime's refusal, in its own words.
    #[error("{message}")]
    Foreign { code: Code, message: String },
    #[error("events were lost: {0} skipped")]
    EventsLost(u64),
}

/// The gRPC status codes that the CRI's clients look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    FailedPrecondition = 9,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
}

impl Code {
    /// By its number in gRPC; one that no runtime is to give is `Unknown`.
    pub fn of(number: u32) -> Code {
        use Code::{
            DataLoss, DeadlineExceeded, FailedPrecondition, Internal, InvalidArgument, NotFound,
            Unavailable, Unimplemented, Unknown,
        };
        let all = [
            InvalidArgument,
            DeadlineExceeded,
            NotFound,
            FailedPrecondition,
            Unimplemented,
            Internal,
            Unavailable,
            DataLoss,
        ];
        all.into_iter().find(|code| *code as u32 == number).unwrap_or(Unknown)
    }
}

impl Error {
    pub fn code(&self) -> Code {
        match self {
            Error::NotFound { .. } => Code::NotFound,
            Error::Foreign { code, .. } => *code,
            Error::Invalid(_) => Code::InvalidArgument,
            Error::Precondition(_) => Code::FailedPrecondition,
            Error::Unsupported(_) => Code::Unimplemented,
            Error::ExecTimeout(_) => Code::DeadlineExceeded,
            Error::Supervisor(_) => Code::Unavailable,
            Error::EventsLost(_) | Error::Damaged { .. } => Code::DataLoss,
            Error::File { .. } | Error::Kernel { .. } | Error::Network(_) => Code::Internal,
            Error::Start { .. } | Error::Image { .. } | Error::Pull { .. } | Error::Push { .. } => {
                Code::Unknown
            }
        }
    }

    /// The whole chain of causes in one line, as Events and container messages show it.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(next) = cause {
            let shown = next.to_string();
            if !text.ends_with(&shown) {
                text = format!("{text}: {shown}");
            }
            cause = next.source();
        }
        text
    }

    pub(crate) fn not_found(kind: &'static str, id: &str) -> Self {
        Error::NotFound { kind, id: id.to_owned() }
    }
}

/// Names the operation and the path of an I/O error.
pub(crate) trait IoContext<T> {
    fn at(self, what: &'static str, path: impl AsRef<Path>) -> Result<T>;
    fn doing(self, what: &'static str) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn at(self, what: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|e| Error::File { what, path: path.as_ref().to_owned(), source: e.into() })
    }

    fn doing(self, what: &'static str) -> Result<T> {
        self.map_err(|e| Error::Kernel { what, source: e.into() })
    }
}
