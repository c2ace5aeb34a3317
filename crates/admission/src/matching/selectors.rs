//! `namespaceSelector` and `objectSelector` (apiserver `plugin/webhook/predicates/{namespace,object}`).

use api::Status;
use api::selector::LabelSelector;
use serde_json::Value;

use super::rule::namespace;
use crate::attributes::{Attributes, Operation};

fn matches_tree(selector: &LabelSelector, object: &Value) -> bool {
    let labels = &object["metadata"]["labels"];
    selector.matches_with(|key| labels.get(key).and_then(Value::as_str))
}

/// Whether the namespace of a request is selected. Cluster-scoped objects other than namespaces always are.
/// Fails with 404 when there is no such namespace.
pub(super) fn matches_namespace(
    selector: &LabelSelector,
    request: &Attributes<'_>,
    object: &Value,
) -> Result<bool, Status> {
    let name = namespace(request);
    let is_namespace = request.row.name == "namespaces";
    if selector.is_empty() || (name.is_empty() && !is_namespace) {
        return Ok(true);
    }
    // The stored namespace does not have the labels yet that this request gives it.
    let writes = matches!(request.operation, Operation::Create | Operation::Update);
    if is_namespace && request.row.subresource.is_empty() && writes {
        return Ok(matches_tree(selector, object));
    }
    let stored = request.cluster.get(("", "v1", "namespaces"), name);
    let stored = stored.ok_or_else(|| Status::not_found("", "namespaces", name))?;
    Ok(selector.matches(stored.meta()))
}

/// Whether the object before or after the request is selected. What has no labels, such as the options of a
/// connection, is never selected.
pub(super) fn matches_object(
    selector: &LabelSelector,
    request: &Attributes<'_>,
    object: &Value,
) -> bool {
    let selects = |object: &Value| object.is_object() && matches_tree(selector, object);
    let is_object = request.operation != Operation::Connect;
    selector.is_empty() || (is_object && selects(object)) || request.old.is_some_and(selects)
}
