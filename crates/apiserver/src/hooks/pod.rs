//! Pods: how upstream's strategy prepares them, and the grace of their deletion.

use api::Status;
use serde_json::Value;

use super::{DEFAULT, Hooks};
use crate::call::Call;

pub(super) static HOOKS: Hooks =
    Hooks { prepare_create, prepare_update, grace, returns_deleted: true, ..DEFAULT };

fn prepare_create(call: &Call<'_>, object: &mut Value) -> Result<(), Status> {
    let warnings = validation::prepare_pod(object, &call.now_text());
    warnings.into_iter().for_each(|warning| call.warn(warning));
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
    match call.row.subresource {
        "status" => validation::prepare_pod_status(new, old),
        "resize" => validation::prepare_resize(new, old),
        "ephemeralcontainers" => validation::prepare_ephemeral(new, old),
        _ => {}
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
