//! YAML bodies, and the keys that stand twice in them.
#![no_main]

use api::schema::{Decoder, Schema};
use libfuzzer_sys::fuzz_target;

mod shapes;

fuzz_target!(|data: &[u8]| {
    let Some((shape, body)) = shapes::choose(data) else { return };
    if let Ok(document) = api::yaml::read(body) {
        let _ = Decoder { schema: Schema::built_in(), shape: &shape }.decode_value(document.value);
    }
});
