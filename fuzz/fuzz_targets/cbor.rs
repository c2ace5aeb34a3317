//! Bodies of creations, as `application/cbor`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::create(input, "application/cbor"));
