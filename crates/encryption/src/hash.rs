//! Hashes by which keys and files are told in figures and messages.

use ring::digest::{SHA256, digest};

/// A hash as upstream tells it; empty of nothing.
pub(crate) fn hash(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return String::new();
    }
    let digits = digest(&SHA256, bytes);
    let digits: String = digits.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{digits}")
}
