//! Trees in the encoding the client asked for.

use api::schema::{Schema, Shape};
use http::Response;
use serde_json::Value;

use super::{Body, Encoding, json_bytes, with_type};

pub(crate) fn value(code: u16, encoding: Encoding, value: &Value) -> Response<Body> {
    match encoding {
        Encoding::Json => json_bytes(code, value.to_string()),
        Encoding::Protobuf => protobuf(code, value),
        Encoding::Yaml => {
            let text = serde_yaml_ng::to_string(value).unwrap_or_default();
            with_type(code, "application/yaml", text)
        }
    }
}

fn protobuf(code: u16, value: &Value) -> Response<Body> {
    match protobuf_bytes(value) {
        Some(sealed) => with_type(code, "application/vnd.kubernetes.protobuf", sealed),
        None => json_bytes(code, value.to_string()),
    }
}

/// A tree in protobuf, in its envelope; `None` for what has no message (custom resources).
pub(super) fn protobuf_bytes(value: &Value) -> Option<Vec<u8>> {
    let (version, kind) =
        (value["apiVersion"].as_str().unwrap_or(""), value["kind"].as_str().unwrap_or(""));
    let (group, short) = version.split_once('/').unwrap_or(("", version));
    let name = match kind {
        "Status" | "PartialObjectMetadata" | "PartialObjectMetadataList" => {
            format!("meta.v1.{kind}")
        }
        _ => api::registry::type_name(group, short, kind),
    };
    let schema = Schema::built_in();
    let id = schema.find(&name)?;
    let message = api::proto::encode(schema, &Shape::Struct(id), value);
    Some(api::proto::seal(version, kind, &message))
}
