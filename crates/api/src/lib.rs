//! The Kubernetes API as data, and the pure algorithms on it: no I/O, no async, no clock, no threads.

pub mod apply;
pub mod cbor;
pub mod cron;
pub mod duration;
pub mod limits;
pub mod names;
pub mod nullable;
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
pub mod tree;
pub mod typed;
pub mod version;
pub mod yaml;

pub use object::{Draft, Meta, Object, Owner};
pub use status::Status;

/// Standard base64 re-encoded canonically; the error is the offset that Go's decoder names.
pub fn base64_canonical(text: &str) -> Result<String, usize> {
    use base64::Engine as _;
    use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
    );
    let decoded = match text.contains(['\r', '\n']) {
        true => LENIENT.decode(text.replace(['\r', '\n'], "")),
        false => LENIENT.decode(text),
    };
    decoded.map(|bytes| STANDARD.encode(bytes)).map_err(|_| base64_fault(text.as_bytes()))
}

/// Where Go's `encoding/base64` gives up.
fn base64_fault(text: &[u8]) -> usize {
    let is_break = |c: u8| matches!(c, b'\r' | b'\n');
    let (mut at, mut within) = (0, 0);
    while let Some(&c) = text.get(at) {
        at += 1;
        match c {
            _ if is_break(c) => {}
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => within = (within + 1) % 4,
            b'=' if within >= 2 => {
                let skip = |at: &mut usize| {
                    while text.get(*at).copied().is_some_and(is_break) {
                        *at += 1;
                    }
                };
                if within == 2 {
                    skip(&mut at);
                    match text.get(at) {
                        None => return text.len(),
                        Some(b'=') => at += 1,
                        Some(_) => return at - 1,
                    }
                }
                skip(&mut at);
                return at;
            }
            _ => return at - 1,
        }
    }
    at - within
}
