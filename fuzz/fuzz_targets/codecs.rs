//! The codecs alone, without a server: what was read is written and read again as it is.
#![no_main]

use api::schema::{Decoder, Schema, Shape};
use api::{Object, cbor, proto};
use libfuzzer_sys::fuzz_target;

/// Kinds that inputs are read as: one of each sort of field there is, and free form.
const KINDS: [&str; 8] = [
    "core.v1.Pod",
    "apps.v1.Deployment",
    "core.v1.ConfigMap",
    "core.v1.Event",
    "apiextensions.v1.CustomResourceDefinition",
    "networking.v1.NetworkPolicy",
    "meta.v1.DeleteOptions",
    "",
];

fuzz_target!(|data: &[u8]| {
    // The first byte chooses the form, the second the kind.
    let [form, kind, body @ ..] = data else { return };
    let kind = KINDS[usize::from(*kind) % KINDS.len()];
    let shape = Schema::built_in().find(kind).map_or(Shape::Any, Shape::Struct);
    let decoder = Decoder { schema: Schema::built_in(), shape: &shape };
    match form % 3 {
        0 => json(&decoder, body),
        1 => protobuf(&decoder, body),
        _ => in_cbor(&decoder, body),
    }
});

fn json(decoder: &Decoder<'_>, body: &[u8]) {
    let Ok(decoded) = decoder.decode_slice(body) else { return };
    let again = decoder.decode_value(decoded.value.clone()).expect("what was read is sound");
    assert!(again.strict.is_empty(), "{:?}", again.strict);
    assert_eq!(again.value, decoded.value);
    if decoded.value.is_object() {
        let object = Object::new(&decoded.value, 7, &["spec.nodeName"]);
        assert_eq!(object.at(12).to_value()["metadata"]["resourceVersion"], "12");
    }
}

fn protobuf(decoder: &Decoder<'_>, body: &[u8]) {
    let Decoder { schema, shape } = *decoder;
    let _ = proto::open(body);
    if *shape == Shape::Any {
        return;
    }
    let read = |message: &[u8]| {
        let tree = proto::decode(schema, shape, message).ok()?;
        decoder.decode_value(tree).ok()
    };
    let Some(first) = read(body) else { return };
    let write = |tree| proto::encode(schema, shape, tree);
    let second = read(&write(&first.value)).expect("what was written is sound");
    let third = read(&write(&second.value)).expect("what was written is sound");
    assert_eq!(second.value, third.value);
}

fn in_cbor(decoder: &Decoder<'_>, body: &[u8]) {
    let Ok(tree) = cbor::decode(body) else { return };
    let mut plain = Vec::new();
    cbor::encode_untagged(&tree, &mut plain);
    assert_eq!(cbor::decode(&plain).as_ref(), Ok(&tree));
    if let Ok(decoded) = decoder.decode_value(tree) {
        let typed = cbor::encode(decoder.schema, decoder.shape, &decoded.value);
        assert_eq!(cbor::decode(&typed), Ok(decoded.value));
    }
}
