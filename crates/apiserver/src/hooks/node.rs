//! Nodes.

use serde_json::{Value, json};

use super::{DEFAULT, Hooks};
use crate::call::Call;
use api::Status;

pub(super) static HOOKS: Hooks = Hooks { prepare_create, prepare_update, ..DEFAULT };

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

/// The pod CIDR is given once.
fn prepare_update(call: &Call<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
    for key in ["podCIDR", "podCIDRs"] {
        let before = &old["spec"][key];
        if !before.is_null() && before != &new["spec"][key] && call.row.subresource.is_empty() {
            let why = "node updates may only change labels, taints, or capacity (or configSource, if the DynamicKubeletConfig feature gate is enabled)";
            let cause = crate::meta::cause(
                "FieldValueForbidden",
                "spec.podCIDRs",
                format!("Forbidden: {why}"),
            );
            return Err(Status::invalid("", "Node", &call.info.name, vec![cause]));
        }
    }
    Ok(())
}
