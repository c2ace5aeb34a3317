//! Bodies of creations, as `application/vnd.kubernetes.protobuf`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::create(input, "application/vnd.kubernetes.protobuf"));
