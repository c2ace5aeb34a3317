//! Compares our codecs with recorded wire forms of upstream: each type as JSON and protobuf,
//! which must decode into each other's form exactly.
//!
//!     cargo run -p api --example wire_fixtures -- <folder of group.version.Kind.{json,pb}>

use std::path::Path;

use api::proto;
use api::registry::type_name;
use api::schema::{Decoder, Schema, Shape};
use serde_json::Value;

fn main() {
    let folder = std::env::args().nth(1).expect("a folder of fixtures");
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .expect("a folder")
        .filter_map(|entry| {
            entry.ok()?.file_name().to_str()?.strip_suffix(".pb").map(str::to_owned)
        })
        .collect();
    names.sort();
    let (mut same, mut unknown) = (0, Vec::new());
    for name in &names {
        match check(Path::new(&folder), name) {
            None => unknown.push(name.as_str()),
            Some(faults) if faults.is_empty() => same += 1,
            Some(faults) => println!("{name}: {}", faults.join("; ")),
        }
    }
    println!("{same} of {} exact; not served: {}", names.len(), unknown.join(" "));
}

/// Faults of one type; none when it is no type of ours.
fn check(folder: &Path, name: &str) -> Option<Vec<String>> {
    let read = |end: &str| std::fs::read(folder.join(format!("{name}.{end}"))).expect("a fixture");
    let (json, wire) = (read("json"), read("pb"));
    let tree: Value = serde_json::from_slice(&json).expect("JSON");
    let text = |key: &str| tree[key].as_str().unwrap_or("");
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    let schema = Schema::built_in();
    let shape = Shape::Struct(schema.find(&type_name(group, version, text("kind")))?);
    let mut faults = Vec::new();
    let decoder = Decoder { schema, shape: &shape };
    match decoder.decode_slice(&json) {
        Err(fault) => faults.push(format!("JSON: {fault}")),
        Ok(decoded) => {
            faults.extend(decoded.strict);
            let message = proto::encode(schema, &shape, &decoded.value);
            let sealed = proto::seal(text("apiVersion"), text("kind"), &message);
            if sealed != wire {
                let at = sealed.iter().zip(&wire).take_while(|(a, b)| a == b).count();
                let (ours, theirs) = (sealed.len(), wire.len());
                faults.push(format!("protobuf differs at {at} ({ours} for {theirs} bytes)"));
            }
        }
    }
    match from_wire(schema, &shape, &wire) {
        Err(fault) => faults.push(format!("protobuf: {fault}")),
        Ok(found) => difference("", &tree, &found, &mut faults),
    }
    Some(faults)
}

fn from_wire(schema: &Schema, shape: &Shape, wire: &[u8]) -> Result<Value, String> {
    let envelope = proto::open(wire)?;
    let mut tree = proto::decode(schema, shape, &envelope.message)?;
    if let Some(map) = tree.as_object_mut() {
        map.insert("apiVersion".into(), envelope.api_version.into());
        map.insert("kind".into(), envelope.kind.into());
    }
    Ok(Decoder { schema, shape }.decode_value(tree)?.value)
}

fn difference(path: &str, want: &Value, got: &Value, faults: &mut Vec<String>) {
    match (want, got) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|k| !a.contains_key(*k))) {
                let at =
                    |m: &serde_json::Map<String, Value>| m.get(key).cloned().unwrap_or_default();
                difference(&format!("{path}.{key}"), &at(a), &at(b), faults);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (at, (a, b)) in a.iter().zip(b).enumerate() {
                difference(&format!("{path}[{at}]"), a, b, faults);
            }
        }
        (a, b) if a == b => {}
        (a, b) => faults.push(format!("{path}: {a} became {b}")),
    }
}
