//! The Kubernetes API as data, and the pure algorithms on it: no I/O, no async, no clock, no threads.

pub mod apply;
pub mod names;
pub mod object;
pub mod patch;
pub mod prose;
pub mod proto;
pub mod quantity;
pub mod registry;
pub mod schema;
pub mod selector;
pub mod status;
pub mod time;

pub use object::{Draft, Meta, Object, Owner};
pub use status::Status;

/// Standard base64 re-encoded canonically; the error is the offset of the first bad byte.
pub fn base64_canonical(text: &str) -> Result<String, usize> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let plain: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match STANDARD.decode(&plain) {
        Ok(bytes) => Ok(STANDARD.encode(bytes)),
        Err(
            base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _),
        ) => Err(at),
        Err(_) => Err(plain.len()),
    }
}
