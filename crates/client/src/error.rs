//! Why a request failed: the server's own answer, or no answer at all.

use api::Status;

/// A failed request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered with a failure.
    #[error("{0}")]
    Api(Box<Status>),
    /// No answer: connection refused, reset, timed out.
    #[error("request {target}")]
    Transport {
        target: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer was not what the type expects.
    #[error("decode answer of {target}")]
    Decode {
        target: String,
        #[source]
        source: serde_json::Error,
    },
    /// The request could not be encoded.
    #[error("encode request for {target}")]
    Encode {
        target: String,
        #[source]
        source: serde_json::Error,
    },
}

impl Error {
    /// The server's Status, when it answered.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Error::Api(status) => Some(status),
            _ => None,
        }
    }

    fn reason_is(&self, reason: &str) -> bool {
        self.status().is_some_and(|s| s.reason == reason)
    }

    pub fn is_not_found(&self) -> bool {
        self.reason_is("NotFound")
    }

    pub fn is_conflict(&self) -> bool {
        self.reason_is("Conflict")
    }

    pub fn is_already_exists(&self) -> bool {
        self.reason_is("AlreadyExists")
    }

    pub fn is_forbidden(&self) -> bool {
        self.reason_is("Forbidden")
    }

    pub fn is_invalid(&self) -> bool {
        self.reason_is("Invalid")
    }

    /// The watch fell off the log, or a continue token expired: start over.
    pub fn is_expired(&self) -> bool {
        self.reason_is("Expired") || self.reason_is("Gone")
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Error {
        Error::Api(Box::new(status))
    }
}
