//! CBOR bodies: what is read is written and read again as it is.
#![no_main]

use api::cbor;
use api::schema::{Decoder, Schema};
use libfuzzer_sys::fuzz_target;

mod shapes;

fuzz_target!(|data: &[u8]| {
    let Some((shape, body)) = shapes::choose(data) else { return };
    let Ok(tree) = cbor::decode(body) else { return };
    let schema = Schema::built_in();
    let mut plain = Vec::new();
    cbor::encode_untagged(&tree, &mut plain);
    assert_eq!(cbor::decode(&plain).as_ref(), Ok(&tree));
    if let Ok(decoded) = (Decoder { schema, shape: &shape }).decode_value(tree) {
        let typed = cbor::encode(schema, &shape, &decoded.value);
        assert_eq!(cbor::decode(&typed), Ok(decoded.value));
    }
});
