//! Trees in the encoding the client asked for.

use api::proto::Writer;
use api::schema::{Schema, Shape};
use http::Response;
use serde_json::Value;

use super::{Body, Encoding, json_bytes, with_type};

pub fn value(code: u16, encoding: Encoding, value: &Value) -> Response<Body> {
    match encoding {
        Encoding::Json => json_bytes(code, value.to_string()),
        Encoding::Protobuf => protobuf(code, value),
        Encoding::Cbor => with_type(code, "application/cbor", cbor_bytes(value)),
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
    let message = match kind {
        "PartialObjectMetadata" => metadata_only(value),
        "PartialObjectMetadataList" => metadata_list(value),
        "Status" => typed("meta.v1.Status", value)?,
        "APIVersions" | "APIGroupList" | "APIGroup" | "APIResourceList" => {
            typed(&format!("meta.v1.{kind}"), value)?
        }
        _ => typed(&api::registry::type_name(group, short, kind), value)?,
    };
    Some(api::proto::seal(version, kind, &message))
}

/// A tree in CBOR; bytes are told from texts by the types of built-in kinds.
pub(super) fn cbor_bytes(value: &Value) -> Vec<u8> {
    let (version, kind) =
        (value["apiVersion"].as_str().unwrap_or(""), value["kind"].as_str().unwrap_or(""));
    let (group, short) = version.split_once('/').unwrap_or(("", version));
    let schema = Schema::built_in();
    let named = |kind: &str| schema.find(&api::registry::type_name(group, short, kind));
    let shape = named(kind).map_or(Shape::Any, Shape::Struct);
    api::cbor::encode(schema, &shape, value)
}

fn typed(name: &str, value: &Value) -> Option<Vec<u8>> {
    Typed::named(name).map(|typed| typed.bytes(value))
}

/// A message of the schema.
pub(super) struct Typed(Shape);

impl Typed {
    fn named(name: &str) -> Option<Typed> {
        Schema::built_in().find(name).map(|id| Typed(Shape::Struct(id)))
    }

    /// The message of a kind; `None` for custom resources.
    pub(super) fn find(group: &str, version: &str, kind: &str) -> Option<Typed> {
        Typed::named(&api::registry::type_name(group, version, kind))
    }

    pub(super) fn bytes(&self, value: &Value) -> Vec<u8> {
        api::proto::encode(Schema::built_in(), &self.0, value)
    }
}

pub(super) fn list_meta(meta: &Value) -> Option<Vec<u8>> {
    typed("meta.v1.ListMeta", meta)
}

/// `meta/v1.PartialObjectMetadata`: metadata is field 1.
fn metadata_only(object: &Value) -> Vec<u8> {
    let mut out = Writer::default();
    out.bytes(1, &typed("meta.v1.ObjectMeta", &object["metadata"]).unwrap_or_default());
    out.written().to_vec()
}

/// `meta/v1.PartialObjectMetadataList`: metadata is field 1, items are field 2.
fn metadata_list(list: &Value) -> Vec<u8> {
    let mut out = Writer::default();
    out.bytes(1, &typed("meta.v1.ListMeta", &list["metadata"]).unwrap_or_default());
    for item in list["items"].as_array().into_iter().flatten() {
        out.bytes(2, &metadata_only(item));
    }
    out.written().to_vec()
}
