//! The examples of RFC 8949's appendix A, what is refused, and round trips.

use serde_json::json;

use super::*;
use crate::schema::{Schema, Shape};

fn hex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16);
    pairs.map(|pair| byte(pair).expect("hex")).collect()
}

fn bytes_of(value: &serde_json::Value) -> Vec<u8> {
    let mut out = Vec::new();
    encode_untagged(value, &mut out);
    out
}

#[test]
fn numbers_have_their_shortest_form() {
    for (text, value) in [
        ("00", json!(0)),
        ("17", json!(23)),
        ("1818", json!(24)),
        ("1903e8", json!(1000)),
        ("1a000f4240", json!(1_000_000)),
        ("1b000000e8d4a51000", json!(1_000_000_000_000_u64)),
        ("1b7fffffffffffffff", json!(i64::MAX)),
        ("20", json!(-1)),
        ("3903e7", json!(-1000)),
        ("3b7fffffffffffffff", json!(i64::MIN)),
        ("f93e00", json!(1.5)),
        ("f97bff", json!(65504.0)),
        ("fa47c35000", json!(100_000.0)),
        ("fa7f7fffff", json!(f64::from(f32::MAX))),
        ("fb7e37e43c8800759c", json!(1.0e+300)),
        ("f90001", json!(5.960464477539063e-8)),
        ("f90400", json!(0.00006103515625)),
        ("f9c400", json!(-4.0)),
        ("fbc010666666666666", json!(-4.1)),
        ("f4", json!(false)),
        ("f5", json!(true)),
        ("f6", json!(null)),
    ] {
        assert_eq!(bytes_of(&value), hex(text), "{value}");
        assert_eq!(decode(&hex(text)), Ok(value));
    }
}

#[test]
fn strings_and_containers() {
    for (text, value) in [
        ("4449455446", json!("IETF")),
        ("80", json!([])),
        ("83010203", json!([1, 2, 3])),
        ("a241610162626203", json!({"a": 1, "bb": 3})),
        ("a24161014162820203", json!({"a": 1, "b": [2, 3]})),
    ] {
        if !text.contains("62626203") {
            assert_eq!(bytes_of(&value), hex(text), "{value}");
        }
        assert_eq!(decode(&hex(text)), Ok(value));
    }
    for (text, value) in [
        ("6449455446", json!("IETF")),
        ("d9d9f7a0", json!({})),
        ("7f616161626163ff", json!("abc")),
        ("5f42010243030405ff", json!("\u{1}\u{2}\u{3}\u{4}\u{5}")),
        ("9f9f8080ff9f8080ffff", json!([[[], []], [[], []]])),
        ("bf6141bf616101616202ffff", json!({"A": {"a": 1, "b": 2}})),
        ("d64401020304", json!("AQIDBA==")),
        ("d54401020304", json!("AQIDBA")),
        ("d7824401020304d64401020304", json!(["01020304", "AQIDBA=="])),
        ("c074323031332d30332d32315432303a30343a30305a", json!("2013-03-21T20:04:00Z")),
        ("c11a514b67b0", json!("2013-03-21T20:04:00Z")),
        ("c1fb41d452d9ec200000", json!("2013-03-21T20:04:00.5Z")),
        ("d8204141", json!("A")),
    ] {
        assert_eq!(decode(&hex(text)), Ok(value));
    }
}

#[test]
fn what_json_cannot_say_is_refused() {
    for (text, why) in [
        ("", "EOF"),
        ("a1", "unexpected EOF"),
        ("5bffffffffffffffff41", "unexpected EOF"),
        ("9bffffffffffffffff", "unexpected EOF"),
        ("0000", "cbor: 1 bytes of extraneous data starting at index 1"),
        (
            "1bffffffffffffffff",
            "cbor: cannot unmarshal positive integer into Go value of type int64 (18446744073709551615 overflows Go's int64)",
        ),
        (
            "3bffffffffffffffff",
            "cbor: cannot unmarshal negative integer into Go value of type int64 (-18446744073709551616 overflows Go's int64)",
        ),
        ("6180", "cbor: invalid UTF-8 string"),
        ("a2614101614102", "cbor: found duplicate map key \"A\" at map element index 1"),
        ("a2414101614102", "cbor: found duplicate map key \"A\" at map element index 1"),
        (
            "a1fb40091eb851eb851f63706965",
            "cbor: cannot unmarshal primitives into Go value of type string",
        ),
        (
            "f97c00",
            "cbor: data item of cbor type primitives is not accepted by protocol: floating-point infinity",
        ),
        (
            "f97e00",
            "cbor: data item of cbor type primitives is not accepted by protocol: floating-point NaN",
        ),
        (
            "f7",
            "cbor: data item of cbor type primitives is not accepted by protocol: simple value 23 is not recognized",
        ),
        (
            "c249010000000000000000",
            "cbor: data item of cbor type tag is not accepted by protocol: bignum",
        ),
        ("c001", "cbor: tag number 0 must be followed by text string, got positive integer"),
        ("1c", "cbor: invalid additional information 28 for type positive integer"),
        ("f818", "cbor: invalid simple value 24 for type primitives"),
        ("ff", "cbor: unexpected \"break\" code"),
        (
            "5f6161ff",
            "cbor: wrong element type UTF-8 text string for indefinite-length byte string",
        ),
    ] {
        assert_eq!(decode(&hex(text)), Err(why.to_owned()), "{text}");
    }
    let mut deepest = [SELF_DESCRIBED.as_slice(), &[0x81; 120]].concat();
    deepest.push(0);
    assert!(decode(&deepest).is_ok());
    let deep = vec![0x81; 1_000_000];
    assert_eq!(decode(&deep), Err("cbor: exceeded max nested level 120".into()));
}

#[test]
fn bytes_are_written_as_bytes() {
    let schema = Schema::built_in();
    let shape = Shape::Struct(schema.find("core.v1.ConfigMap").expect("known"));
    let map = json!({"data": {"k": "AQIDBA=="}, "binaryData": {"b": "AQIDBA=="}});
    let bytes = encode(schema, &shape, &map);
    assert_eq!(bytes[..3], SELF_DESCRIBED);
    assert!(bytes.ends_with(&hex("4a62696e61727944617461a14162d64401020304")));
    assert_eq!(decode(&bytes), Ok(map));
}

/// Numbers from a seed, the same every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn value(&mut self, depth: usize) -> serde_json::Value {
        let below = |random: &mut Random| random.value(depth + 1);
        match self.next() % if depth > 4 { 6 } else { 8 } {
            0 => json!(null),
            1 => json!(self.next().is_multiple_of(2)),
            2 => json!(self.next() as i64 >> (self.next() % 63)),
            3 => json!(f64::from(self.next() as i32) / f64::from(1 << (self.next() % 20))),
            4 => json!(f64::from_bits(self.next() & !(1 << 62))),
            5 => json!("é".repeat((self.next() % 30) as usize)),
            6 => (0..self.next() % 6).map(|_| below(self)).collect(),
            _ => {
                let entries = (0..self.next() % 6)
                    .map(|n| (format!("{}{n}", "k".repeat(n as usize)), below(self)));
                serde_json::Value::Object(entries.collect())
            }
        }
    }
}

#[test]
fn trees_come_back_as_they_went() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..5_000 {
        let value = random.value(0);
        let bytes = bytes_of(&value);
        assert_eq!(decode(&bytes), Ok(value));
        // Whatever is read is written back to what is read.
        let mut broken = bytes.clone();
        if let Some(byte) = broken.get_mut(random.next() as usize % bytes.len().max(1)) {
            *byte = random.next() as u8;
        }
        if let Ok(other) = decode(&broken) {
            assert_eq!(decode(&bytes_of(&other)), Ok(other));
        }
    }
}

#[test]
fn random_bytes_never_panic() {
    let mut random = Random(42);
    for _ in 0..50_000 {
        let bytes: Vec<u8> = (0..random.next() % 40).map(|_| random.next() as u8).collect();
        let _ = decode(&bytes);
    }
}
