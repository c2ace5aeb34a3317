//! JSON bodies: what is read is read again as it is.
#![no_main]

use api::Object;
use api::schema::{Decoder, Schema, Shape};
use libfuzzer_sys::fuzz_target;

mod shapes;

fuzz_target!(|data: &[u8]| {
    let Some((shape, body)) = shapes::choose(data) else { return };
    let decoder = Decoder { schema: Schema::built_in(), shape: &shape };
    let Ok(decoded) = decoder.decode_slice(body) else { return };
    let again = decoder.decode_value(decoded.value.clone()).expect("what was read is sound");
    assert!(again.strict.is_empty(), "{:?}", again.strict);
    if shape != Shape::Any {
        assert_eq!(again.value, decoded.value);
    }
    if decoded.value.is_object() {
        let object = Object::new(&decoded.value, 7, &["spec.nodeName"]);
        assert_eq!(object.at(12).to_value()["metadata"]["resourceVersion"], "12");
    }
});
