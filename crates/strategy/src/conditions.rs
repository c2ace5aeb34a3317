//! Conditions of definitions.

use serde_json::{Value, json};

/// Keeps a definition until its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

pub fn condition(kind: &str, yes: bool, reason: &str, message: &str) -> Value {
    let status = if yes { "True" } else { "False" };
    json!({"type": kind, "status": status, "reason": reason, "message": message})
}

/// Puts a condition in; its time changes with its status only.
pub fn set_condition(status: &mut Value, mut condition: Value, now: &str) {
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(list) = status["conditions"].as_array_mut() else { return };
    condition["lastTransitionTime"] = now.into();
    match list.iter_mut().find(|c| c["type"] == condition["type"]) {
        Some(old) => {
            if old["status"] == condition["status"] {
                condition["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            // Keys it had beside (the observed generation) stay.
            for (key, value) in condition.as_object().into_iter().flatten() {
                old[key] = value.clone();
            }
        }
        None => list.push(condition),
    }
}
