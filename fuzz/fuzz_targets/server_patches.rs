//! Patches of every kind, of objects that are there; nothing is stored.
#![no_main]

const KINDS: [&str; 5] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/apply-patch+cbor",
];

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let [kind, object, patch @ ..] = input else { return };
    let kind = KINDS[usize::from(*kind) % KINDS.len()];
    let (path, _) = fuzz::OBJECTS[usize::from(*object) % fuzz::OBJECTS.len()];
    let manager = if kind.contains("apply") { "&fieldManager=fuzz&force=true" } else { "" };
    fuzz::world().check("PATCH", &format!("{path}?dryRun=All{manager}"), kind, patch);
});
