//! Bodies of custom resources: any tree with metadata, pruned and defaulted by the schema.

use api::Status;
use api::limits::EXPANSION_MAX;
use api::registry::Resource;
use api::schema::{Decoder, Schema, Shape};
use custom::Node;
use serde_json::{Value, json};

use strategy::decode::Found;

/// Makes an object of a tree; `strict` holds what reading the tree had found.
pub(super) fn decode(
    row: &Resource,
    node: &Node,
    Found { mut value, mut strict }: Found,
) -> Result<Found, Status> {
    check_type(row, &mut value)?;
    let meta = value["metadata"].take();
    let (meta, unknown) = metadata(meta).map_err(|fault| {
        Status::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: {fault}",
            row.kind, row.version, row.kind
        ))
    })?;
    value["metadata"] = meta;
    strict.extend(unknown);
    let unknown = custom::prune(node, &mut value);
    strict.extend(unknown.iter().map(|path| format!("unknown field {path:?}")));
    custom::drop_nulls(node, &mut value);
    custom::default(node, &mut value).map_err(|_| Status::too_large(EXPANSION_MAX))?;
    Ok(Found { value, strict })
}

/// Metadata is typed like everybody's.
fn metadata(sent: Value) -> Result<(Value, Vec<String>), String> {
    let schema = Schema::built_in();
    let id = schema.find("meta.v1.ObjectMeta").ok_or("objects have metadata")?;
    let sent = if sent.is_null() { json!({}) } else { sent };
    let shape = Shape::Struct(id);
    let decoded = Decoder { schema, shape: &shape }.decode_value(sent)?;
    let located = |fault: String| fault.replacen("field \"", "field \"metadata.", 1);
    Ok((decoded.value, decoded.strict.into_iter().map(located).collect()))
}

fn check_type(row: &Resource, value: &mut Value) -> Result<(), Status> {
    let expected = row.api_version();
    let Some(map) = value.as_object_mut() else {
        return Err(Status::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: json: cannot unmarshal into an object",
            row.kind, row.version, row.kind
        )));
    };
    for (key, wanted, what) in
        [("apiVersion", expected.as_str(), "API version"), ("kind", row.kind, "kind")]
    {
        match map.get(key).and_then(Value::as_str).filter(|found| !found.is_empty()) {
            Some(found) if found != wanted => {
                return Err(Status::bad_request(format!(
                    "the {what} in the data ({found}) does not match the expected {what} ({wanted})"
                )));
            }
            _ => drop(map.insert(key.into(), wanted.into())),
        }
    }
    Ok(())
}
