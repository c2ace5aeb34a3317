//! Pods: how upstream's strategy prepares them, and the grace of their deletion.

use api::Status;
use serde_json::Value;

use crate::{DEFAULT, Hooks, Step};

pub(crate) const HOOKS: Hooks =
    Hooks { prepare_create, prepare_update, grace, returns_deleted: true, ..DEFAULT };

fn prepare_create(step: &Step<'_>, object: &mut Value) -> Result<(), Status> {
    let warnings = validation::prepare_pod(object, &step.context.now_text());
    warnings.into_iter().for_each(|warning| step.context.warn(warning));
    Ok(())
}

fn prepare_update(step: &Step<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
    match step.row.subresource {
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
