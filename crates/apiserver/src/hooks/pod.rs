//! Pods: quality of service, and the grace of their deletion.

use api::Status;
use api::quantity::Quantity;
use serde_json::{Value, json};

use kinds::{items, set_default};

use super::{DEFAULT, Hooks};
use crate::call::Call;

pub(super) static HOOKS: Hooks =
    Hooks { prepare_create, prepare_update, grace, returns_deleted: true, ..DEFAULT };

fn prepare_create(_: &Call<'_>, object: &mut Value) -> Result<(), Status> {
    let class = qos_class(&object["spec"]);
    object["status"] = json!({"phase": "Pending", "qosClass": class});
    Ok(())
}

/// Guaranteed, Burstable or BestEffort (KEP-24 rules of cpu and memory).
fn qos_class(spec: &Value) -> &'static str {
    let (mut any, mut guaranteed) = (false, true);
    for container in items(spec, "containers").chain(items(spec, "initContainers")) {
        for resource in ["cpu", "memory"] {
            let amount = |what: &str| {
                let text = container["resources"][what][resource].as_str()?;
                Quantity::parse(text).ok().filter(|q| !q.is_zero())
            };
            let (request, limit) = (amount("requests"), amount("limits"));
            any |= request.is_some() || limit.is_some();
            let equal = limit.is_some() && request.is_none_or(|r| Some(r) == limit);
            guaranteed &= equal;
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn prepare_update(call: &Call<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
    if call.row.subresource == "status" {
        set_default(&mut new["status"], "qosClass", old["status"]["qosClass"].clone());
    }
    Ok(())
}

fn grace(object: &Value, asked: Option<i64>) -> i64 {
    let spec = &object["spec"];
    let finished = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    // Nobody runs it: nothing to wait for.
    if spec["nodeName"].as_str().unwrap_or("").is_empty() || finished {
        return 0;
    }
    asked.unwrap_or_else(|| spec["terminationGracePeriodSeconds"].as_i64().unwrap_or(30)).max(0)
}
