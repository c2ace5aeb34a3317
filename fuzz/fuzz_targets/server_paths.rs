//! Methods, paths and queries as they come. Changes are dry runs.
#![no_main]

const METHODS: [&str; 7] = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"];

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((method, rest)) = input.split_first() else { return };
    let method = METHODS[usize::from(*method) % METHODS.len()];
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let uri = match method {
        "GET" | "HEAD" | "OPTIONS" => format!("/{path}?{query}"),
        // The first value of a key is the one that holds.
        _ => format!("/{path}?dryRun=All&{query}"),
    };
    fuzz::world().check(method, &uri, "application/json", b"{}");
});
