//! CBOR (RFC 8949), as far as it has a JSON form: the codec of KEP-4222.
//!
//! Trees go out with sorted map keys, the shortest forms of numbers, and byte strings for texts,
//! which need no check of their encoding; what comes in may be any well-formed item whose parts
//! JSON can say. Rules and error sentences are those of upstream's decoder.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::decode;
pub use encode::{encode, encode_untagged};

/// The self-described tag (55799), with which every item of upstream begins.
pub const SELF_DESCRIBED: [u8; 3] = [0xd9, 0xd9, 0xf7];
