//! Steps of a request in which the resource's hooks act.

use api::Status;
use serde_json::Value;

use crate::call::Call;

/// Owners that are named twice are kept once, and told.
fn dedup_owners(call: &Call<'_>, object: &mut Value) {
    let duplicates = validation::dedup_owners(object);
    if duplicates.is_empty() {
        return;
    }
    let when = match call.context.info.verb {
        "patch" => " after mutating admission happens",
        _ => "",
    };
    let uids = duplicates.join(", ");
    call.context.warn(format!(".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {uids}"));
}

/// Prepares a new object as its kind wants it (upstream's `PrepareForCreate`).
pub(super) fn prepare_create(call: &Call<'_>, object: &mut Value) -> Result<(), Status> {
    dedup_owners(call, object);
    call.strategy.drop_disabled(call.row, object, None);
    (call.strategy.hooks().prepare_create)(&call.step(), object)
}

/// Prepares a changed object as its kind wants it (upstream's `PrepareForUpdate`).
pub(super) fn prepare_update(
    call: &Call<'_>,
    old: &Value,
    object: &mut Value,
) -> Result<(), Status> {
    dedup_owners(call, object);
    call.strategy.drop_disabled(call.row, object, Some(old));
    (call.strategy.hooks().prepare_update)(&call.step(), old, object)
}

/// Books the allocations of a new or changed object, where servers share the store.
pub(super) async fn book(call: &Call<'_>, object: &mut Value) -> Result<(), Status> {
    match call.strategy.hooks().book.filter(|_| call.resources.store.is_shared()) {
        Some(book) => book(&call.step(), object).await,
        None => Ok(()),
    }
}

/// Releases what the first state held and the second (absent when the object is gone) does not.
pub(super) async fn release(call: &Call<'_>, old: &Value, kept: Option<&Value>) {
    if call.strategy.hooks().releases {
        call.transaction.release(old, kept).await;
    }
}

/// A new object has no status but its zero value, unless it brings its own.
pub(super) fn reset_status(call: &Call<'_>, object: &mut Value) {
    if !call.strategy.has_status() || call.strategy.hooks().brings_status {
        return;
    }
    let types = call.strategy.types();
    let zero = types.schema().zero(types.shape());
    let Some(map) = object.as_object_mut() else { return };
    match zero.get("status") {
        Some(status) => drop(map.insert("status".into(), status.clone())),
        None => drop(map.remove("status")),
    }
}
