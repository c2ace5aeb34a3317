//! Label and field selectors: they parse or are refused, what parses selects without fault, and a
//! server answers them.
#![no_main]

use api::selector::{FieldSelector, LabelSelector};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let parsed = (LabelSelector::parse(text).is_ok(), FieldSelector::parse(text).is_ok());
    let escaped: String = input.iter().map(|byte| format!("%{byte:02x}")).collect();
    for (key, parses) in [("labelSelector", parsed.0), ("fieldSelector", parsed.1)] {
        let uri = format!("/api/v1/namespaces/default/configmaps?{key}={escaped}");
        let (code, answer) = fuzz::world().ask("GET", &uri, "", &[]);
        assert!(code == 200 || code == 400, "{key} {text:?}: {code} {answer}");
        assert!(parses || code == 400, "{key} {text:?} is no selector, and was taken");
    }
});
