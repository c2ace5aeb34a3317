//! Headers by which requests from outside say who sends them, in whose name, and in what form they want the answer.
#![no_main]

const NAMES: [&str; 17] = [
    "authorization",
    "x-remote-user",
    "x-remote-uid",
    "x-remote-group",
    "x-remote-extra-scopes",
    "impersonate-user",
    "impersonate-uid",
    "impersonate-group",
    "impersonate-extra-a%2fb",
    "accept",
    "accept-encoding",
    "priority",
    "sec-websocket-protocol",
    "connection",
    "audit-id",
    "traceparent",
    "tracestate",
];

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    // A line is a number of a header and its value.
    let lines = input.split(|byte| *byte == b'\n').filter_map(|line| line.split_first());
    let headers: Vec<(&str, &[u8])> = lines
        .take(32)
        .map(|(choice, value)| (NAMES[usize::from(*choice) % NAMES.len()], value))
        .collect();
    for path in ["/api/v1/namespaces", "/version", "/statusz", "/openapi/v3"] {
        fuzz::world().check_outside(path, &headers);
    }
});
