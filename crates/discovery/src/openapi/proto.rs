//! The v2 document as protobuf: gnostic's `openapi.v2.Document`, which kubectl up to 1.27 asks for.
//!
//! Written from the JSON form. Free values (defaults, enums, extensions) are YAML texts in gnostic's
//! `Any`, for which JSON is good YAML.

use api::proto::Writer;
use serde_json::Value;

/// Field numbers are those of gnostic's `OpenAPIv2.proto`.
pub(super) fn document(json: &Value) -> Vec<u8> {
    let mut out = Writer::default();
    text(&mut out, 1, &json["swagger"]);
    let mut info = Writer::default();
    text(&mut info, 1, &json["info"]["title"]);
    text(&mut info, 2, &json["info"]["version"]);
    out.bytes(2, info.written());
    let mut paths = Writer::default();
    for (path, item) in entries(&json["paths"]) {
        named(&mut paths, 2, path, &path_item(item));
    }
    out.bytes(8, paths.written());
    let mut definitions = Writer::default();
    for (name, definition) in entries(&json["definitions"]) {
        named(&mut definitions, 1, name, &schema(definition));
    }
    out.bytes(9, definitions.written());
    out.written().to_vec()
}

fn entries(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(k, v)| (k.as_str(), v))
}

fn text(out: &mut Writer, tag: u32, value: &Value) {
    if let Some(text) = value.as_str().filter(|t| !t.is_empty()) {
        out.bytes(tag, text.as_bytes());
    }
}

/// `NamedX`: a name and a message.
fn named(out: &mut Writer, tag: u32, name: &str, message: &[u8]) {
    let mut pair = Writer::default();
    pair.bytes(1, name.as_bytes());
    pair.bytes(2, message);
    out.bytes(tag, pair.written());
}

fn any(value: &Value) -> Vec<u8> {
    let mut out = Writer::default();
    out.bytes(2, format!("{value}\n").as_bytes());
    out.written().to_vec()
}

fn extensions(out: &mut Writer, tag: u32, value: &Value) {
    for (name, extension) in entries(value).filter(|(name, _)| name.starts_with("x-")) {
        named(out, tag, name, &any(extension));
    }
}

fn schema(json: &Value) -> Vec<u8> {
    let mut out = Writer::default();
    text(&mut out, 1, &json["$ref"]);
    text(&mut out, 2, &json["format"]);
    text(&mut out, 4, &json["description"]);
    if let Some(default) = json.get("default") {
        out.bytes(5, &any(default));
    }
    for required in json["required"].as_array().into_iter().flatten() {
        text(&mut out, 19, required);
    }
    for value in json["enum"].as_array().into_iter().flatten() {
        out.bytes(20, &any(value));
    }
    if let Some(inner) = json.get("additionalProperties") {
        out.bytes(21, &wrapped(&schema(inner)));
    }
    if let Some(kind) = json["type"].as_str() {
        out.bytes(22, &wrapped(kind.as_bytes()));
    }
    if let Some(items) = json.get("items") {
        out.bytes(23, &wrapped(&schema(items)));
    }
    let mut properties = Writer::default();
    for (name, property) in entries(&json["properties"]) {
        named(&mut properties, 1, name, &schema(property));
    }
    if !properties.written().is_empty() {
        out.bytes(25, properties.written());
    }
    extensions(&mut out, 31, json);
    out.written().to_vec()
}

/// A message whose field 1 is this.
fn wrapped(bytes: &[u8]) -> Vec<u8> {
    let mut out = Writer::default();
    out.bytes(1, bytes);
    out.written().to_vec()
}

fn path_item(json: &Value) -> Vec<u8> {
    let mut out = Writer::default();
    for (tag, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if let Some(json) = json.get(method) {
            out.bytes(tag, &operation(json));
        }
    }
    out.written().to_vec()
}

fn operation(json: &Value) -> Vec<u8> {
    let mut out = Writer::default();
    text(&mut out, 3, &json["description"]);
    text(&mut out, 5, &json["operationId"]);
    for parameter in json["parameters"].as_array().into_iter().flatten() {
        let mut query = Writer::default();
        text(&mut query, 2, &parameter["in"]);
        text(&mut query, 4, &parameter["name"]);
        text(&mut query, 6, &parameter["type"]);
        // ParametersItem { Parameter { NonBodyParameter { query } } }
        let mut plain = Writer::default();
        plain.bytes(3, query.written());
        let mut chosen = Writer::default();
        chosen.bytes(2, plain.written());
        out.bytes(8, &wrapped(chosen.written()));
    }
    extensions(&mut out, 13, json);
    out.written().to_vec()
}
