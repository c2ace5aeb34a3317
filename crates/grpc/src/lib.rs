//! gRPC: a client ([`Channel`]), whose one HTTP/2 connection is made again when it breaks, and a server
//! ([`server`]). Calls have one question, and one answer or a stream of them.
//!
//! Messages are `prost` types that the caller writes by hand, so that building needs no `protoc`. How a
//! connection is dialled (TCP, TLS, a unix socket; which of several peers) is a port, [`Dial`]. Every call has
//! a deadline, every message a largest length.

mod channel;
mod code;
mod connection;
mod frame;
mod message;
pub mod server;
mod tasks;

pub use channel::{Channel, Dial, Settings};
pub use code::Code;
pub use connection::{Connection, KeepAlive};
pub use message::Answers;
pub use tasks::Tasks;

/// Why a call has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// The call did not reach the peer.
    #[error("{0}")]
    Unreachable(String),
    /// The peer may have carried the call out.
    #[error("{0}")]
    Lost(String),
    /// As [`CallError::Lost`], because the deadline passed.
    #[error("{0}")]
    Late(String),
    /// The peer's own words, with gRPC's code.
    #[error("{message}")]
    Refused { code: u32, message: String },
}

impl CallError {
    /// The name of the status code, as Go's client gives it to its caller.
    pub fn code_name(&self) -> String {
        let code = match self {
            CallError::Unreachable(_) | CallError::Lost(_) => Code::Unavailable as u32,
            CallError::Late(_) => Code::DeadlineExceeded as u32,
            CallError::Refused { code, .. } => *code,
        };
        Code::name(code)
    }

    /// The text that Go's client makes of it.
    pub fn go_text(&self) -> String {
        let text = match self {
            CallError::Late(_) => "context deadline exceeded".to_owned(),
            other => other.to_string(),
        };
        format!("rpc error: code = {} desc = {text}", self.code_name())
    }
}

#[cfg(test)]
mod tests {
    use super::CallError;

    #[test]
    fn errors_read_as_those_of_gos_client() {
        let refused = |code| CallError::Refused { code, message: "no".into() };
        assert_eq!(refused(5).go_text(), "rpc error: code = NotFound desc = no");
        assert_eq!(refused(99).go_text(), "rpc error: code = Code(99) desc = no");
        assert_eq!(
            CallError::Late("3 s".into()).go_text(),
            "rpc error: code = DeadlineExceeded desc = context deadline exceeded"
        );
    }
}
