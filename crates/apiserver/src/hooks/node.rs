//! Nodes.

use api::Status;
use serde_json::{Value, json};

use super::{DEFAULT, Hooks};
use crate::call::Call;

pub(super) static HOOKS: Hooks = Hooks { prepare_create, ..DEFAULT };

/// A node is not ready until it says so (admission TaintNodesByCondition).
fn prepare_create(_: &Call<'_>, object: &mut Value) -> Result<(), Status> {
    let taint = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"});
    let taints =
        object["spec"].as_object_mut().map(|s| s.entry("taints").or_insert_with(|| json!([])));
    if let Some(list) = taints.and_then(Value::as_array_mut)
        && !list.iter().any(|t| t["key"] == taint["key"])
    {
        list.push(taint);
    }
    Ok(())
}
