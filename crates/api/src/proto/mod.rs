//! The protobuf form of API objects, both ways, directed by the schema.
//!
//! Layout: apimachinery `runtime/serializer/protobuf`: the magic `k8s\0`, then a `runtime.Unknown`
//! with the type beside the object's own message. Messages are those of upstream's
//! `generated.proto` (proto2, unpacked lists, maps as entries).

mod decode;
mod encode;
mod wire;

use serde_json::Value;

use crate::schema::{Schema, Shape};
use wire::{Malformed, Reader};

pub use wire::Writer;

/// The type that alternatives to a JSON schema are beside.
const JSON_SCHEMA: &str = "apiextensions.v1.JSONSchemaProps";

/// What a protobuf body starts with.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// A body's type and message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    pub api_version: String,
    pub kind: String,
    pub message: Vec<u8>,
}

/// Takes a body apart. The error is a sentence for a 400.
pub fn open(body: &[u8]) -> Result<Envelope, String> {
    let rest = body.strip_prefix(MAGIC).ok_or(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]",
    )?;
    open_unknown(rest).map_err(|e| e.to_string())
}

fn open_unknown(bytes: &[u8]) -> Result<Envelope, Malformed> {
    let mut envelope =
        Envelope { api_version: String::new(), kind: String::new(), message: Vec::new() };
    let mut unknown = Reader::new(bytes);
    while let Some((tag, field)) = unknown.next()? {
        match tag {
            1 => {
                let mut meta = Reader::new(field.bytes()?);
                while let Some((tag, field)) = meta.next()? {
                    let text = field.text()?.to_owned();
                    match tag {
                        1 => envelope.api_version = text,
                        2 => envelope.kind = text,
                        _ => {}
                    }
                }
            }
            2 => envelope.message = field.bytes()?.to_vec(),
            _ => {}
        }
    }
    Ok(envelope)
}

/// Puts a body together.
pub fn seal(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let mut meta = Writer::default();
    meta.bytes(1, api_version.as_bytes());
    meta.bytes(2, kind.as_bytes());
    let mut unknown = Writer::default();
    unknown.bytes(1, meta.written());
    unknown.bytes(2, message);
    unknown.bytes(3, b"");
    unknown.bytes(4, b"");
    [MAGIC.as_slice(), unknown.written()].concat()
}

/// A message as a tree. Empty values are there as sent; decoding by schema drops them.
pub fn decode(schema: &Schema, shape: &Shape, message: &[u8]) -> Result<Value, String> {
    decode::message(schema, shape, message).map_err(|e| e.to_string())
}

/// A tree as a message; what the schema has no field number for is left out.
pub fn encode(schema: &Schema, shape: &Shape, value: &Value) -> Vec<u8> {
    encode::message(schema, shape, value)
}

#[cfg(test)]
mod tests;
