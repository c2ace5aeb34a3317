//! PATCH: JSON, merge, strategic merge, and server-side apply.

use api::apply::unfolded;
use api::{Status, patch as algorithms};
use bytes::Bytes;
use serde_json::{Map, Value};

use super::update::{Operation, change};
use super::{Answer, create};
use crate::body;
use crate::call::Call;
use crate::managed;
use strategy::decode::{self, media_type};
use strategy::meta;
use strategy::query::FieldValidation;

pub async fn patch(call: &Call<'_>, body: Bytes, content_type: &str) -> Result<Answer, Status> {
    let media = media_type(content_type);
    check_options(call, is_apply(media))?;
    call.context.audit.iter().for_each(|audit| audit.request_patch(&body));
    match media {
        "application/json-patch+json" => {
            let patch = json_body(&body)?;
            must_be_operations(&patch)?;
            change(call, Operation::Update, |old| {
                let mut tree = base(old, &body);
                algorithms::apply_json_patch(&mut tree, &patch).map_err(|_| unprocessable())?;
                reread(call, old, tree)
            })
            .await
        }
        "application/merge-patch+json" => {
            let patch = json_body(&body)?;
            change(call, Operation::Update, |old| {
                let mut tree = base(old, &body);
                algorithms::apply_merge_patch(&mut tree, &patch);
                reread(call, old, tree)
            })
            .await
        }
        "application/strategic-merge-patch+json" if call.strategy.takes_strategic_merge() => {
            let patch = json_body(&body)?;
            let types = call.strategy.types();
            change(call, Operation::Update, |old| {
                let mut tree = base(old, &body);
                algorithms::apply_strategic_patch(types.schema(), types.shape(), &mut tree, &patch)
                    .map_err(Status::bad_request)?;
                reread(call, old, tree).map_err(|refused| unconvertible(&patch, refused))
            })
            .await
        }
        _ if is_apply(media) => apply(call, &body, media).await,
        _ => Err(Status::unsupported_media_type(call.strategy.patch_types())),
    }
}

/// An apply must say who applies; only an apply may be forced.
pub fn check_options(call: &Call<'_>, is_apply: bool) -> Result<(), Status> {
    let unnamed = call.context.query.get("fieldManager").unwrap_or("").is_empty();
    let cause = if is_apply && unnamed {
        meta::required("fieldManager", "is required for apply patch")
    } else if !is_apply && call.context.query.get("force").is_some_and(|force| !force.is_empty()) {
        let detail = "Forbidden: may not be specified for non-apply patch";
        meta::cause("FieldValueForbidden", "force", detail)
    } else {
        return Ok(());
    };
    Err(Status::invalid("meta.k8s.io", "PatchOptions", "", vec![cause]))
}

/// A strategic merge whose result is not of the type is invalid, not undecodable.
fn unconvertible(patch: &Value, refused: Status) -> Status {
    match algorithms::conversion_fault(patch, &refused.message) {
        Some((shown, fault)) if refused.code == 400 => {
            let cause = meta::invalid("patch", &shown.into(), &fault);
            Status::invalid("", "", "", vec![cause])
        }
        _ => refused,
    }
}

/// An operation that does not apply; upstream says no more than this.
pub fn unprocessable() -> Status {
    let message = "the server rejected our request due to an error in our request";
    Status::failure(422, "Invalid", message).with_causes(Vec::new())
}

pub fn json_body(body: &[u8]) -> Result<Value, Status> {
    api::schema::read_json(body)
        .map_err(|fault| Status::bad_request(format!("error decoding patch: {fault}")))
}

/// A JSON patch is a list of objects.
pub fn must_be_operations(patch: &Value) -> Result<(), Status> {
    let (found, wanted) = match patch {
        Value::Array(list) if list.len() > algorithms::OPERATIONS_MAX => {
            let text = format!(
                "The allowed maximum operations in a JSON patch is {}, got {}",
                algorithms::OPERATIONS_MAX,
                list.len()
            );
            return Err(Status::failure(413, "RequestEntityTooLarge", text));
        }
        Value::Array(list) => match list.iter().find(|one| !one.is_object()) {
            Some(other) => (other, "handlers.jsonPatchOp"),
            None => return Ok(()),
        },
        other => (other, "[]handlers.jsonPatchOp"),
    };
    let found = match found {
        Value::Null => return Ok(()),
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    Err(Status::bad_request(format!(
        "error decoding patch: json: cannot unmarshal {found} into Go value of type {wanted}"
    )))
}

/// What the patch is laid on. Managers, often half of an object, are left out unless the patch names
/// them: absent, they stay as they are.
fn base(old: &Value, patch: &[u8]) -> Value {
    const MANAGERS: &str = "managedFields";
    if patch.windows(MANAGERS.len()).any(|part| part == MANAGERS.as_bytes()) {
        return unfolded(old).into_owned();
    }
    let without = |map: &Map<String, Value>, key: &str| -> Map<String, Value> {
        map.iter().filter(|(k, _)| *k != key).map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    let Some(map) = old.as_object() else { return old.clone() };
    let mut base = without(map, "metadata");
    if let Some(meta) = old["metadata"].as_object() {
        base.insert("metadata".into(), without(meta, MANAGERS).into());
    }
    base.into()
}

/// The patched tree as a decoded object; what it says of the revision is a precondition only when
/// the patch changed it.
fn reread(call: &Call<'_>, old: &Value, tree: Value) -> Result<Value, Status> {
    let decoded = body::redecode(call, tree, call.context.validation)?;
    decoded.warnings.into_iter().for_each(|w| call.context.warn(w));
    let mut value = decoded.value;
    if value["metadata"]["resourceVersion"] == old["metadata"]["resourceVersion"] {
        meta::of(&mut value).remove("resourceVersion");
    }
    Ok(value)
}

const APPLY_CBOR: &str = "application/apply-patch+cbor";

/// Is this a body of server-side apply?
pub fn is_apply(media: &str) -> bool {
    matches!(media, "application/apply-patch+yaml" | APPLY_CBOR)
}

/// An applied object as it was sent: only the fields that were sent are owned. With it, the keys
/// that stand twice in it.
pub fn applied_body(body: &[u8], media: &str) -> Result<(Value, Vec<String>), Status> {
    if media == APPLY_CBOR {
        let read = api::cbor::decode(body).map(|tree| (tree, Vec::new()));
        return read.map_err(|e| Status::bad_request(format!("error decoding CBOR: {e}")));
    }
    let document = api::yaml::read(body)
        .map_err(|e| Status::bad_request(format!("error decoding YAML: {e}")))?;
    Ok((document.value, document.duplicates))
}

async fn apply(call: &Call<'_>, body: &[u8], media: &str) -> Result<Answer, Status> {
    let row = call.main_row();
    let (applied, duplicates) = applied_body(body, media)?;
    refuse_duplicates(call, &duplicates)?;
    let exists = call.resources.collection(row).get(&call.key()).is_some();
    if !exists && call.row.subresource.is_empty() {
        let created = managed::apply(call, None, &applied)?;
        return create::create_object(call, created, Operation::Apply).await;
    }
    change(call, Operation::Apply, |old| managed::apply(call, Some(old), &applied)).await
}

/// Keys that stand twice in an applied object are refused or told, as the request wants it.
fn refuse_duplicates(call: &Call<'_>, duplicates: &[String]) -> Result<(), Status> {
    if call.context.validation == FieldValidation::Ignore {
        return Ok(());
    }
    let Some(found) = decode::yaml_duplicates(duplicates) else { return Ok(()) };
    if call.context.validation == FieldValidation::Strict {
        let fault = format!("error strict decoding YAML: error converting YAML to JSON: {found}");
        return Err(Status::bad_request(fault));
    }
    body::warnings_of(found).into_iter().for_each(|warning| call.context.warn(warning));
    Ok(())
}
