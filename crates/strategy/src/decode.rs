//! Schema-directed decoding of JSON, YAML, protobuf and CBOR into trees.

use api::Status;
use api::registry::{Registry, Resource};
use api::schema::{Decoder, Schema, Shape};
use serde_json::Value;

/// The forms a body may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Yaml,
    Protobuf,
    Cbor,
}

pub const ACCEPTED: &str =
    "application/json, application/yaml, application/vnd.kubernetes.protobuf, application/cbor";

const ACCEPTED_OF_CUSTOM: &str = "application/json, application/yaml, application/cbor";

impl Format {
    pub fn of(content_type: &str) -> Result<Format, Status> {
        match media_type(content_type) {
            "" | "application/json" => Ok(Format::Json),
            "application/yaml" => Ok(Format::Yaml),
            "application/vnd.kubernetes.protobuf" => Ok(Format::Protobuf),
            "application/cbor" => Ok(Format::Cbor),
            _ => Err(Status::unsupported_media_type(ACCEPTED)),
        }
    }
}

/// The media type without parameters.
pub fn media_type(header: &str) -> &str {
    header.split(';').next().unwrap_or("").trim()
}

/// What an object is made of.
pub enum Input<'b> {
    Body(&'b [u8], Format),
    /// A tree that was put together from parts: a patched object.
    Tree(Value),
}

/// A tree and what strict validation finds wrong with it.
#[derive(Debug)]
pub struct Found {
    pub value: Value,
    pub strict: Vec<String>,
}

/// Decodes an object of a built-in type.
pub fn typed(row: &Resource, input: Input<'_>) -> Result<Found, Status> {
    let schema = Schema::built_in();
    let shape = row.ty.map_or(Shape::Any, Shape::Struct);
    let decoder = Decoder { schema, shape: &shape };
    let version = row.kind_version.map_or(row.version, |(_, version)| version);
    let (decoded, json) = match input {
        Input::Tree(tree) => (decoder.decode_value(tree), None),
        Input::Body(body, Format::Json) => (decoder.decode_slice(body), Some(body)),
        Input::Body(body, Format::Yaml) => (read_yaml(&decoder, body), None),
        Input::Body(body, Format::Protobuf) => {
            let tree = protobuf_tree(schema, &shape, body);
            (tree.and_then(|tree| decoder.decode_value(tree)), None)
        }
        Input::Body(body, Format::Cbor) => (decoder.decode_value(cbor_tree(row, body)?), None),
    };
    let api::schema::Decoded { mut value, strict } = decoded.map_err(|fault| {
        let refused = json.and_then(|body| typeless(row, body));
        refused.unwrap_or_else(|| undecodable(row.kind, version, &fault))
    })?;
    check_type(row, &mut value)?;
    Ok(Found { value, strict })
}

/// Decodes an object whose fields its own definition knows.
pub fn untyped(row: &Resource, input: Input<'_>) -> Result<Found, Status> {
    let read = Decoder { schema: Schema::built_in(), shape: &Shape::Any };
    let tree = match input {
        Input::Tree(value) => return Ok(Found { value, strict: Vec::new() }),
        Input::Body(body, Format::Json) => read.decode_slice(body),
        Input::Body(body, Format::Yaml) => read_yaml(&read, body),
        Input::Body(_, Format::Protobuf) => {
            return Err(Status::unsupported_media_type(ACCEPTED_OF_CUSTOM));
        }
        Input::Body(body, Format::Cbor) => read.decode_value(cbor_tree(row, body)?),
    };
    let tree = tree.map_err(|fault| undecodable(row.kind, row.version, &fault))?;
    Ok(Found { value: tree.value, strict: tree.strict })
}

/// Characters of a body shown when it cannot be told what it is.
const SUMMARY: usize = 30;

/// The refusal of a body whose type is none, or another than the path's.
fn typeless(row: &Resource, body: &[u8]) -> Option<Status> {
    let fault = match validation::go_syntax_fault(body) {
        Some(fault) => fault,
        None => {
            let mut tree = api::schema::read_json(body).ok()?;
            let what = tree.as_object().map(|map| {
                let of =
                    |key| map.get(key).and_then(validation::go_not_text).map(|kind| (kind, key));
                of("kind").or_else(|| of("apiVersion"))
            });
            match what {
                Some(None) => return check_type(row, &mut tree).err(),
                Some(Some((kind, key))) => {
                    format!(
                        "json: cannot unmarshal {kind} into Go struct field .{key} of type string"
                    )
                }
                None => format!(
                    "json: cannot unmarshal {} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}",
                    validation::go_not_text(&tree).unwrap_or("string")
                ),
            }
        }
    };
    let text = String::from_utf8_lossy(body);
    let summary = match text.char_indices().nth(SUMMARY) {
        _ if body.is_empty() => "<empty>".into(),
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text.into_owned(),
    };
    Some(Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: {fault} ({summary})",
        row.kind
    )))
}

fn undecodable(kind: &str, version: &str, fault: &str) -> Status {
    Status::bad_request(format!(
        "{kind} in version {version:?} cannot be handled as a {kind}: {fault}"
    ))
}

/// The message with its type as the JSON form has it.
pub fn protobuf_tree(schema: &Schema, shape: &Shape, body: &[u8]) -> Result<Value, String> {
    let envelope = api::proto::open(body)?;
    let mut tree = api::proto::decode(schema, shape, &envelope.message)?;
    if let Some(map) = tree.as_object_mut() {
        map.insert("apiVersion".into(), envelope.api_version.into());
        map.insert("kind".into(), envelope.kind.into());
    }
    Ok(tree)
}

/// A CBOR body's tree; one that is none cannot be told what it is.
fn cbor_tree(row: &Resource, body: &[u8]) -> Result<Value, Status> {
    api::cbor::decode(body).map_err(|fault| {
        let hex: String = body.iter().take(SUMMARY).map(|byte| format!("{byte:02x}")).collect();
        let summary = match body.len() {
            0 => "<empty>".into(),
            1..=SUMMARY => hex,
            _ => format!("{hex} ..."),
        };
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): unable to determine group/version/kind: {fault} ({summary})",
            row.kind
        ))
    })
}

fn read_yaml(decoder: &Decoder<'_>, body: &[u8]) -> Result<api::schema::Decoded, String> {
    let document =
        api::yaml::read(body).map_err(|fault| format!("error converting YAML to JSON: {fault}"))?;
    let mut decoded = decoder.decode_value(document.value)?;
    decoded.strict.splice(0..0, yaml_duplicates(&document.duplicates));
    Ok(decoded)
}

/// Strict reading's sentence about keys that stand twice, with a line for each.
pub fn yaml_duplicates(found: &[String]) -> Option<String> {
    (!found.is_empty()).then(|| format!("yaml: unmarshal errors:\n  {}", found.join("\n  ")))
}

/// The body's type must be the path's; an absent one is filled in.
fn check_type(row: &Resource, value: &mut Value) -> Result<(), Status> {
    let expected = row.kind_api_version();
    let Some(map) = value.as_object_mut() else {
        return Err(undecodable(row.kind, row.version, "json: cannot unmarshal into an object"));
    };
    // Old clients evict in a version that is the same but for its name.
    let evicts = (row.name, row.subresource) == ("pods", "eviction");
    if evicts && map.get("apiVersion").is_some_and(|version| version == "policy/v1beta1") {
        map.insert("apiVersion".into(), expected.as_str().into());
    }
    let found = |key: &str| map.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let (version, kind) =
        (found("apiVersion").unwrap_or(&expected), found("kind").unwrap_or(row.kind));
    if version != expected || kind != row.kind {
        return Err(other_type(row, version, kind));
    }
    map.insert("apiVersion".into(), expected.into());
    map.insert("kind".into(), row.kind.into());
    Ok(())
}

/// Refuses a type that is none, or that this path does not take.
fn other_type(row: &Resource, version: &str, kind: &str) -> Status {
    let (group, short) = version.split_once('/').unwrap_or(("", version));
    if short.contains('/') {
        return Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): unexpected GroupVersion string: {version}",
            row.kind
        ));
    }
    let is_known = Registry::built_in().by_kind(group, short, kind).is_some();
    if is_known && kind == row.kind {
        let expected = row.kind_api_version();
        return Status::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({expected})"
        ));
    }
    let fault = if is_known {
        let package = match row.group {
            "" => "core",
            group => group.split('.').next().unwrap_or(group),
        };
        format!("converting ({short}.{kind}) to ({package}.{}): unknown conversion", row.kind)
    } else {
        let scheme = match row.group {
            "apiregistration.k8s.io" => "k8s.io/kube-aggregator/pkg/apiserver/scheme/scheme.go:28",
            "apiextensions.k8s.io" => {
                "k8s.io/apiextensions-apiserver/pkg/apiserver/apiserver.go:55"
            }
            _ => "pkg/api/legacyscheme/scheme.go:30",
        };
        format!("no kind {kind:?} is registered for version {version:?} in scheme {scheme:?}")
    };
    Status::bad_request(format!(
        "{kind} in version {short:?} cannot be handled as a {}: {fault}",
        row.kind
    ))
}
