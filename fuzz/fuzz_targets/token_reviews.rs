//! Answers of a server that is asked whose a token is: whatever it says, the request is answered.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Ok(status) = serde_json::from_slice::<serde_json::Value>(input) else { return };
    fuzz::review_tokens_with(status);
    let headers = [("authorization", b"Bearer foreign".as_slice())];
    fuzz::world().check_outside("/api/v1/namespaces", &headers);
});
