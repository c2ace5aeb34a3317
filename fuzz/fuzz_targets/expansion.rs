//! Bodies that grow while they are read: a piece of the input is repeated, nested or referred to as
//! often as two bytes say, and every reader gets the result. The memory limit of the run
//! (`fuzz/run.sh`) is the assertion, with the time limit.
#![no_main]

use api::schema::{Decoder, Schema};
use libfuzzer_sys::fuzz_target;

mod shapes;

/// Largest body that the server takes.
const BODY_MAX: usize = 3 << 20;

fuzz_target!(|data: &[u8]| {
    let Some((shape, rest)) = shapes::choose(data) else { return };
    let Some((&[kind, low, high], pieces)) = rest.split_first_chunk::<3>() else { return };
    let count = usize::from(u16::from_le_bytes([low, high])) + 1;
    let (piece, end) = pieces.split_at(pieces.len() / 2);
    let count = count.min(BODY_MAX / piece.len().max(1));
    let body = [piece.repeat(count), end.repeat(count)].concat();
    let decoder = Decoder { schema: Schema::built_in(), shape: &shape };
    match kind % 6 {
        0 => drop(decoder.decode_slice(&body)),
        1 => {
            if let Ok(document) = api::yaml::read(&body) {
                drop(decoder.decode_value(document.value));
            }
        }
        2 => {
            if let Ok(tree) = api::cbor::decode(&body) {
                drop(decoder.decode_value(tree));
            }
        }
        3 => drop(api::proto::decode(Schema::built_in(), &shape, &body)),
        4 => aliases(piece, count),
        _ => copies(piece, count),
    }
});

/// Each line refers to the one before as often as it can.
fn aliases(piece: &[u8], count: usize) {
    let name = String::from_utf8_lossy(piece);
    let references = count % 100 + 1;
    let mut text = format!("a0: &a0 [{name}]\n");
    for line in 1..count.min(200) {
        let one = format!("*a{}", line - 1);
        text += &format!("a{line}: &a{line} [{}]\n", vec![one; references].join(", "));
    }
    drop(api::yaml::read(text.as_bytes()));
}

/// Operations that double, deepen and shift.
fn copies(piece: &[u8], count: usize) {
    let text = String::from_utf8_lossy(piece);
    let mut target = serde_json::json!({"a": [text], "b": {}});
    let operations: Vec<_> = (0..count.min(10_000))
        .map(|n| match piece.get(n % piece.len().max(1)).copied().unwrap_or(0) % 4 {
            0 => serde_json::json!({"op": "copy", "from": "/a", "path": "/a/-"}),
            1 => serde_json::json!({"op": "add", "path": format!("/b{}", "/c".repeat(n % 200)), "value": {}}),
            2 => serde_json::json!({"op": "move", "from": "/a/0", "path": "/a/-"}),
            _ => serde_json::json!({"op": "copy", "from": "", "path": "/b/d"}),
        })
        .collect();
    drop(api::patch::apply_json_patch(&mut target, &operations.into()));
}
