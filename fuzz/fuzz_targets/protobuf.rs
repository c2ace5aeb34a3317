//! Protobuf bodies: what is read is written and read again as it is.
#![no_main]

use api::proto;
use api::schema::{Decoder, Schema, Shape};
use libfuzzer_sys::fuzz_target;

mod shapes;

fuzz_target!(|data: &[u8]| {
    let Some((shape, body)) = shapes::choose(data) else { return };
    if shape == Shape::Any {
        let _ = proto::open(body);
        return;
    }
    let schema = Schema::built_in();
    let decoder = Decoder { schema, shape: &shape };
    let read = |message: &[u8]| {
        let tree = proto::decode(schema, &shape, message).ok()?;
        decoder.decode_value(tree).ok()
    };
    let Some(first) = read(body) else { return };
    let second = read(&proto::encode(schema, &shape, &first.value)).expect("what was written is sound");
    let third = read(&proto::encode(schema, &shape, &second.value)).expect("what was written is sound");
    assert_eq!(second.value, third.value);
});
