//! PATCH: JSON, merge, strategic merge, and server-side apply.

use api::{Status, patch as algorithms};
use bytes::Bytes;
use serde_json::Value;

use super::update::{Operation, change};
use super::{Answer, create};
use crate::body::{self, media_type};
use crate::call::Call;
use crate::managed;

const ACCEPTED: &str = "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml";

pub(crate) async fn patch(
    call: &Call<'_>,
    body: Bytes,
    content_type: &str,
) -> Result<Answer, Status> {
    match media_type(content_type) {
        "application/json-patch+json" => {
            let patch = json_body(&body)?;
            change(call, Operation::Update, |old| {
                let mut tree = old.clone();
                algorithms::apply_json_patch(&mut tree, &patch).map_err(unprocessable)?;
                reread(call, old, tree)
            })
            .await
        }
        "application/merge-patch+json" => {
            let patch = json_body(&body)?;
            change(call, Operation::Update, |old| {
                let mut tree = old.clone();
                algorithms::apply_merge_patch(&mut tree, &patch);
                reread(call, old, tree)
            })
            .await
        }
        "application/strategic-merge-patch+json" => {
            let patch = json_body(&body)?;
            change(call, Operation::Update, |old| {
                let mut tree = old.clone();
                let schema = call.server.schema;
                algorithms::apply_strategic_patch(schema, &call.shape(), &mut tree, &patch)
                    .map_err(Status::bad_request)?;
                reread(call, old, tree)
            })
            .await
        }
        "application/apply-patch+yaml" => apply(call, &body).await,
        _ => Err(Status::unsupported_media_type(ACCEPTED)),
    }
}

fn unprocessable(message: String) -> Status {
    Status::failure(422, "Invalid", message)
}

fn json_body(body: &[u8]) -> Result<Value, Status> {
    serde_json::from_slice(body)
        .map_err(|e| Status::bad_request(format!("error decoding patch: {e}")))
}

/// The patched tree as a decoded object; what it says of the revision is a precondition only when
/// the patch changed it.
fn reread(call: &Call<'_>, old: &Value, tree: Value) -> Result<Value, Status> {
    let row = call.main_row();
    let decoded = body::redecode(call.server.schema, row, tree, call.validation)?;
    decoded.warnings.into_iter().for_each(|w| call.warn(w));
    let mut value = decoded.value;
    if value["metadata"]["resourceVersion"] == old["metadata"]["resourceVersion"] {
        crate::meta::of(&mut value).remove("resourceVersion");
    }
    Ok(value)
}

async fn apply(call: &Call<'_>, body: &[u8]) -> Result<Answer, Status> {
    if call.query.get("fieldManager").unwrap_or("").is_empty() {
        let cause = crate::meta::required("fieldManager", "is required for apply patch");
        return Err(Status::invalid("meta.k8s.io", "PatchOptions", "", vec![cause]));
    }
    let row = call.main_row();
    let applied: Value = serde_yaml_ng::from_slice(body)
        .map_err(|e| Status::bad_request(format!("error decoding YAML: {e}")))?;
    let exists = call.server.collection(row).get(&call.key()).is_some();
    if !exists && call.row.subresource.is_empty() {
        let created = managed::apply(call, None, &applied)?;
        return create::create_object(call, created, Operation::Apply).await;
    }
    change(call, Operation::Apply, |old| managed::apply(call, Some(old), &applied)).await
}
