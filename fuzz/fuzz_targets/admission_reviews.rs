//! Answers of admission webhooks.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Ok(review) = serde_json::from_slice::<serde_json::Value>(input) else { return };
    for is_mutating in [false, true] {
        std::hint::black_box(admission::webhooks::is_usable("uid", is_mutating, &review));
    }
});
