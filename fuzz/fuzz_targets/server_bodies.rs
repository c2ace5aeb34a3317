//! Bodies of creations in every encoding, sent to a whole server; nothing is stored.
#![no_main]

const ENCODINGS: [&str; 4] = [
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/cbor",
];

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((choice, rest)) = input.split_first() else { return };
    fuzz::create(rest, ENCODINGS[usize::from(*choice) % ENCODINGS.len()]);
});
