//! Field management: who owns which field (`metadata.managedFields`), and server-side apply.
//!
//! The algorithm is `api::apply`; this is where a request's manager and time come in.

use api::Status;
use serde_json::Value;

use crate::call::Call;

/// Records what an update changed as owned by its manager.
pub(crate) fn track(_call: &Call<'_>, _old: Option<&Value>, _new: &mut Value) {}

/// The object after applying `applied` to `old`.
pub(crate) fn apply(
    call: &Call<'_>,
    _old: Option<&Value>,
    _applied: &Value,
) -> Result<Value, Status> {
    let m = format!("server-side apply of {} is not implemented", call.row.name);
    Err(Status::failure(501, "NotImplemented", m))
}
