//! CBOR to trees.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde_json::{Map, Number, Value};

use super::SELF_DESCRIBED;
use crate::limits::DEPTH_MAX;

const NAMES: [&str; 8] = [
    "positive integer",
    "negative integer",
    "byte string",
    "UTF-8 text string",
    "array",
    "map",
    "tag",
    "primitives",
];
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const BREAK: u8 = 0xff;

/// Reads one item, which must be all there is. The error is upstream's sentence.
pub fn decode(data: &[u8]) -> Result<Value, String> {
    if data.is_empty() {
        return Err("EOF".into());
    }
    let mut reader = Reader { data, at: 0, later: Vec::new() };
    while data[reader.at..].starts_with(&SELF_DESCRIBED) {
        reader.at += SELF_DESCRIBED.len();
    }
    let value = reader.item(0)?;
    match data.len() - reader.at {
        0 => Ok(value),
        more => {
            let at = reader.at;
            Err(format!("cbor: {more} bytes of extraneous data starting at index {at}"))
        }
    }
}

struct Reader<'a> {
    data: &'a [u8],
    at: usize,
    /// Encodings that the tags around an item expect of its bytes, the innermost last.
    later: Vec<u64>,
}

/// What an item begins with.
struct Head {
    major: u8,
    /// The low five bits of the first byte.
    info: u8,
    argument: u64,
}

impl Head {
    fn is_indefinite(&self) -> bool {
        self.info == 31
    }
}

fn unacceptable(major: u8, what: &str) -> String {
    let name = NAMES[usize::from(major)];
    format!("cbor: data item of cbor type {name} is not accepted by protocol: {what}")
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: u64) -> Result<&'a [u8], String> {
        let end = usize::try_from(count).ok().and_then(|count| self.at.checked_add(count));
        let taken = end.and_then(|end| self.data.get(self.at..end));
        let taken = taken.ok_or("unexpected EOF")?;
        self.at += taken.len();
        Ok(taken)
    }

    fn head(&mut self) -> Result<Head, String> {
        let first = self.take(1)?[0];
        let (major, info) = (first >> 5, first & 31);
        let argument = match info {
            0..=23 | 31 => u64::from(info),
            24..=27 => {
                let bytes = self.take(1 << (info - 24))?;
                bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
            }
            _ => u64::MAX,
        };
        let name = NAMES[usize::from(major)];
        match (major, info) {
            (_, 28..=30) | (0 | 1 | TAG, 31) => {
                Err(format!("cbor: invalid additional information {info} for type {name}"))
            }
            (7, 31) => Err("cbor: unexpected \"break\" code".into()),
            (7, 24) if argument < 32 => {
                Err(format!("cbor: invalid simple value {argument} for type {name}"))
            }
            _ => Ok(Head { major, info, argument }),
        }
    }

    /// Whether the break of an item of indefinite length is next, which is then passed.
    fn ends(&mut self) -> Result<bool, String> {
        let next = *self.data.get(self.at).ok_or("unexpected EOF")?;
        self.at += usize::from(next == BREAK);
        Ok(next == BREAK)
    }

    fn item(&mut self, depth: usize) -> Result<Value, String> {
        let head = self.head()?;
        if (ARRAY..=TAG).contains(&head.major) && depth >= DEPTH_MAX {
            return Err(format!("cbor: exceeded max nested level {DEPTH_MAX}"));
        }
        match head.major {
            0 | 1 => integer(&head),
            BYTES => self.bytes(&head).map(|bytes| self.shown(&bytes).into()),
            TEXT => self.text(&head).map(Value::String),
            ARRAY => self.array(&head, depth + 1),
            MAP => self.map(&head, depth + 1),
            TAG => self.tagged(head.argument, depth + 1),
            _ => simple(&head),
        }
    }

    /// The bytes of a string, of one piece or several.
    fn bytes(&mut self, head: &Head) -> Result<Vec<u8>, String> {
        if !head.is_indefinite() {
            return Ok(self.take(head.argument)?.to_vec());
        }
        let (mut all, name) = (Vec::new(), NAMES[usize::from(head.major)]);
        while !self.ends()? {
            let piece = self.head()?;
            if piece.major != head.major {
                let other = NAMES[usize::from(piece.major)];
                return Err(format!(
                    "cbor: wrong element type {other} for indefinite-length {name}"
                ));
            }
            if piece.is_indefinite() {
                return Err(format!("cbor: indefinite-length {name} chunk is not definite-length"));
            }
            let bytes = self.take(piece.argument)?;
            if head.major == TEXT {
                utf8(bytes)?;
            }
            all.extend_from_slice(bytes);
        }
        Ok(all)
    }

    fn text(&mut self, head: &Head) -> Result<String, String> {
        let bytes = self.bytes(head)?;
        String::from_utf8(bytes).map_err(|_| INVALID_UTF8.to_owned())
    }

    /// Bytes as the text that JSON would have for them.
    fn shown(&self, bytes: &[u8]) -> String {
        match self.later.last() {
            Some(21) => URL_SAFE_NO_PAD.encode(bytes),
            Some(22) => STANDARD.encode(bytes),
            Some(_) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            None => String::from_utf8_lossy(bytes).into_owned(),
        }
    }

    fn array(&mut self, head: &Head, depth: usize) -> Result<Value, String> {
        let mut items = Vec::new();
        let mut left = head.argument;
        while self.goes_on(head, &mut left)? {
            items.push(self.item(depth)?);
        }
        Ok(Value::Array(items))
    }

    fn goes_on(&mut self, head: &Head, left: &mut u64) -> Result<bool, String> {
        if head.is_indefinite() {
            return Ok(!self.ends()?);
        }
        let more = *left > 0;
        *left = left.saturating_sub(1);
        Ok(more)
    }

    fn map(&mut self, head: &Head, depth: usize) -> Result<Value, String> {
        let mut map = Map::new();
        let mut left = head.argument;
        while self.goes_on(head, &mut left)? {
            let key = self.key()?;
            let value = self.item(depth)?;
            if map.contains_key(&key) {
                let at = map.len();
                return Err(format!(
                    "cbor: found duplicate map key {key:?} at map element index {at}"
                ));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }

    /// A map's key: a string of either kind.
    fn key(&mut self) -> Result<String, String> {
        let head = self.head()?;
        match head.major {
            BYTES => {
                let bytes = self.bytes(&head)?;
                Ok(self.shown(&bytes))
            }
            TEXT => self.text(&head),
            other => Err(format!(
                "cbor: cannot unmarshal {} into Go value of type string",
                NAMES[usize::from(other)]
            )),
        }
    }

    /// The content of a tag: times and expected encodings are heeded, other tags passed over.
    fn tagged(&mut self, tag: u64, depth: usize) -> Result<Value, String> {
        let next = *self.data.get(self.at).ok_or("unexpected EOF")?;
        let found = NAMES[usize::from(next >> 5)];
        let misplaced = |expected: &str| {
            Err(format!("cbor: tag number {tag} must be followed by {expected}, got {found}"))
        };
        match tag {
            0 if next >> 5 != TEXT => misplaced("text string"),
            0 => written_time(self.item(depth)?),
            1 if !matches!(next >> 5, 0 | 1) && !matches!(next, 0xf9..=0xfb) => {
                misplaced("integer or floating-point number")
            }
            1 => epoch_time(&self.item(depth)?),
            2 | 3 => Err(unacceptable(TAG, "bignum")),
            21..=23 => {
                self.later.push(tag);
                let content = self.item(depth);
                self.later.pop();
                content
            }
            _ => self.item(depth),
        }
    }
}

const INVALID_UTF8: &str = "cbor: invalid UTF-8 string";

fn utf8(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| INVALID_UTF8.to_owned())
}

fn integer(head: &Head) -> Result<Value, String> {
    let (name, argument) = (NAMES[usize::from(head.major)], i128::from(head.argument));
    let number = if head.major == 1 { -1 - argument } else { argument };
    i64::try_from(number).map(Value::from).map_err(|_| {
        format!("cbor: cannot unmarshal {name} into Go value of type int64 ({number} overflows Go's int64)")
    })
}

/// False, true, null, and floating-point numbers that JSON can write.
fn simple(head: &Head) -> Result<Value, String> {
    let number = match head.info {
        20 => return Ok(Value::Bool(false)),
        21 => return Ok(Value::Bool(true)),
        22 => return Ok(Value::Null),
        25 => half(head.argument as u16),
        26 => f64::from(f32::from_bits(head.argument as u32)),
        27 => f64::from_bits(head.argument),
        _ => {
            return Err(unacceptable(
                7,
                &format!("simple value {} is not recognized", head.argument),
            ));
        }
    };
    let not_finite = if number.is_nan() { "floating-point NaN" } else { "floating-point infinity" };
    Number::from_f64(number).map(Value::Number).ok_or_else(|| unacceptable(7, not_finite))
}

/// A half-precision number's value.
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 0x3ff));
    let size = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    };
    if bits & 0x8000 == 0 { size } else { -size }
}

/// Tag 0: the text of a point in time.
fn written_time(text: Value) -> Result<Value, String> {
    let sound = text.as_str().is_some_and(|text| text.parse::<Timestamp>().is_ok());
    match sound {
        true => Ok(text),
        false => Err(format!("cbor: cannot set {text} for time.Time: it is no RFC 3339 time")),
    }
}

/// Tag 1: seconds since 1970, shown as RFC 3339 in UTC.
fn epoch_time(seconds: &Value) -> Result<Value, String> {
    let time = match (seconds.as_i64(), seconds.as_f64()) {
        (Some(whole), _) => Timestamp::from_second(whole).ok(),
        (None, Some(part)) => {
            let nanoseconds = (part * 1e9).round();
            (nanoseconds.abs() < 1e27)
                .then(|| Timestamp::from_nanosecond(nanoseconds as i128).ok())
                .flatten()
        }
        (None, None) => None,
    };
    let unfit = || {
        "cbor: decoded time cannot be represented in RFC3339 format with sub-second precision: Time.MarshalText: year outside of range [0,9999]".to_owned()
    };
    time.map(|time| time.to_string().into()).ok_or_else(unfit)
}
