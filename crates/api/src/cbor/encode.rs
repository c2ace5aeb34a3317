//! Trees to CBOR.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};

use super::SELF_DESCRIBED;
use crate::schema::{Schema, Shape};

/// Major types, in their place.
const UNSIGNED: u8 = 0 << 5;
const NEGATIVE: u8 = 1 << 5;
const BYTES: u8 = 2 << 5;
const ARRAY: u8 = 4 << 5;
const MAP: u8 = 5 << 5;
const TAG: u8 = 6 << 5;

/// "Expected later encoding: base64": what the text form of these bytes is.
const BASE64: u64 = 22;

/// An item with the self-described tag. Where `shape` has bytes, which JSON writes as base64, the
/// bytes themselves are written.
pub fn encode(schema: &Schema, shape: &Shape, value: &Value) -> Vec<u8> {
    let mut out = SELF_DESCRIBED.to_vec();
    Encoder { schema, out: &mut out }.item(shape, value);
    out
}

/// Appends an item of free form without the tag.
pub fn encode_untagged(value: &Value, out: &mut Vec<u8>) {
    Encoder { schema: Schema::built_in(), out }.item(&Shape::Any, value);
}

struct Encoder<'a> {
    schema: &'a Schema,
    out: &'a mut Vec<u8>,
}

impl Encoder<'_> {
    /// A major type with its argument, in the shortest form.
    fn head(&mut self, major: u8, argument: u64) {
        let bytes = argument.to_be_bytes();
        match argument {
            0..=23 => self.out.push(major | bytes[7]),
            24..=0xff => self.out.extend_from_slice(&[major | 24, bytes[7]]),
            0x100..=0xffff => self.wide(major | 25, &bytes[6..]),
            0x1_0000..=0xffff_ffff => self.wide(major | 26, &bytes[4..]),
            _ => self.wide(major | 27, &bytes),
        }
    }

    fn wide(&mut self, first: u8, rest: &[u8]) {
        self.out.push(first);
        self.out.extend_from_slice(rest);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.head(BYTES, bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    fn item(&mut self, shape: &Shape, value: &Value) {
        match value {
            Value::Null => self.out.push(0xf6),
            Value::Bool(false) => self.out.push(0xf4),
            Value::Bool(true) => self.out.push(0xf5),
            Value::Number(number) => self.number(number),
            Value::String(text) => self.text(shape, text),
            Value::Array(items) => {
                let below = if let Shape::List(below) = shape { below } else { &Shape::Any };
                self.head(ARRAY, items.len() as u64);
                items.iter().for_each(|item| self.item(below, item));
            }
            Value::Object(map) => self.map(shape, map),
        }
    }

    fn text(&mut self, shape: &Shape, text: &str) {
        match STANDARD.decode(text) {
            Ok(decoded) if *shape == Shape::Bytes => {
                self.head(TAG, BASE64);
                self.bytes(&decoded);
            }
            _ => self.bytes(text.as_bytes()),
        }
    }

    /// Keys in the order of their encoded bytes: shorter ones first.
    fn map(&mut self, shape: &Shape, map: &Map<String, Value>) {
        let mut entries: Vec<(&String, &Value)> = map.iter().collect();
        entries.sort_by(|(a, _), (b, _)| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
        self.head(MAP, entries.len() as u64);
        let schema = self.schema;
        for (key, value) in entries {
            self.bytes(key.as_bytes());
            let below = match shape {
                Shape::Map(below) => Some(&**below),
                Shape::Struct(id) => schema.get(*id).field(key).map(|field| &field.shape),
                _ => None,
            };
            self.item(below.unwrap_or(&Shape::Any), value);
        }
    }

    fn number(&mut self, number: &Number) {
        if let Some(n) = number.as_u64() {
            return self.head(UNSIGNED, n);
        }
        match (number.as_i64(), number.as_f64()) {
            (Some(n), _) => self.head(NEGATIVE, !n as u64),
            (None, Some(n)) => self.float(n),
            (None, None) => self.out.push(0xf6),
        }
    }

    /// In the fewest bytes that keep the value.
    fn float(&mut self, n: f64) {
        let single = n as f32;
        if f64::from(single) != n {
            return self.wide(0xfb, &n.to_be_bytes());
        }
        match half(single) {
            Some(half) => self.wide(0xf9, &half.to_be_bytes()),
            None => self.wide(0xfa, &single.to_be_bytes()),
        }
    }
}

/// The half-precision bits of a finite number that they can hold.
fn half(n: f32) -> Option<u16> {
    let bits = n.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let exponent = ((bits >> 23) & 0xff) as i32 - 127;
    let fraction = bits & 0x7f_ffff;
    match exponent {
        -127 if fraction == 0 => Some(sign),
        -14..=15 if fraction & 0x1fff == 0 => {
            Some(sign | ((exponent + 15) as u16) << 10 | (fraction >> 13) as u16)
        }
        // Subnormal halves: the leading one becomes part of the fraction.
        -24..=-15 => {
            let (whole, shift) = (fraction | 0x80_0000, (-1 - exponent) as u32);
            let kept = whole.trailing_zeros() >= shift;
            kept.then(|| sign | (whole >> shift) as u16)
        }
        _ => None,
    }
}
