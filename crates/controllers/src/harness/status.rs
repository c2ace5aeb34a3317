//! Status writes, skipped when they would change nothing.

use client::{Client, Error, Resource};
use serde::Serialize;
use serde_json::Value;

/// Whether two statuses say the same. Zero, empty and absent are the same, as in the API's own form of
/// most counters.
pub(crate) fn same_status<S: Serialize>(old: Option<&S>, new: Option<&S>) -> bool {
    let bare = |status: Option<&S>| {
        let mut value = serde_json::to_value(status).expect("a status always encodes");
        prune(&mut value);
        value
    };
    bare(old) == bare(new)
}

/// Writes the status of `new`; nothing if `old` has the same one. `None` if the object is gone.
pub(crate) async fn write_status<K: Resource, S: Serialize>(
    client: &Client,
    new: &K,
    old_status: Option<&S>,
    new_status: Option<&S>,
) -> Result<Option<K>, Error> {
    if same_status(old_status, new_status) {
        return Ok(Some(new.clone()));
    }
    match client.update_status(new).await {
        Ok(written) => Ok(Some(written)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn prune(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(prune);
            fields.retain(|_, v| !is_zero(v));
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
    if is_zero(value) {
        *value = Value::Null;
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Number(n) => n.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) => false,
    }
}
