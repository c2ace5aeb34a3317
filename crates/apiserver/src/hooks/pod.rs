//! Pods: quality of service, and the grace of their deletion.

use api::Status;
use serde_json::{Value, json};

use validation::set_default;

use super::{DEFAULT, Hooks};
use crate::call::Call;

pub(super) static HOOKS: Hooks =
    Hooks { prepare_create, prepare_update, grace, returns_deleted: true, ..DEFAULT };

fn prepare_create(_: &Call<'_>, object: &mut Value) -> Result<(), Status> {
    let class = validation::qos_class(&object["spec"]);
    object["status"] = json!({"phase": "Pending", "qosClass": class});
    Ok(())
}

fn prepare_update(call: &Call<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
    let node = old["spec"]["nodeName"].as_str().unwrap_or("");
    // What a node can do is asked of the node (admission NodeDeclaredFeatureValidator).
    if call.row.subresource == "resize"
        && !node.is_empty()
        && call.read(("", "v1", "nodes"), node).is_none()
    {
        let why = format!("node {node:?} not found");
        return Err(Status::forbidden("", "pods", &call.info.name, &why));
    }
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
