//! Certificate signing requests: they say who asked, and keep what was decided.

use api::Status;
use serde_json::{Map, Value, json};

use crate::{DEFAULT, Hooks, Step};
use validation::{items, items_mut};

pub(crate) const HOOKS: Hooks = Hooks { prepare_create, prepare_update, ..DEFAULT };

fn prepare_create(step: &Step<'_>, object: &mut Value) -> Result<(), Status> {
    let user = step.context.user;
    let Some(spec) = object["spec"].as_object_mut() else { return Ok(()) };
    set(spec, "username", (!user.name.is_empty()).then(|| user.name.as_str().into()));
    set(spec, "uid", (!user.uid.is_empty()).then(|| user.uid.as_str().into()));
    set(spec, "groups", (!user.groups.is_empty()).then(|| json!(user.groups)));
    set(spec, "extra", (!user.extra.is_empty()).then(|| json!(user.extra)));
    Ok(())
}

fn set(map: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    match value {
        Some(value) => drop(map.insert(key.into(), value)),
        None => drop(map.remove(key)),
    }
}

/// Nothing of the request changes; decisions are written through `approval` only.
fn prepare_update(step: &Step<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
    new["spec"] = old["spec"].clone();
    match step.row.subresource {
        "status" => {
            for kind in ["Approved", "Denied"] {
                keep_conditions(&mut new["status"], &old["status"], kind);
            }
        }
        "approval" => {
            let decided = new["status"]["conditions"].take();
            new["status"] = old["status"].clone();
            if decided.is_array() {
                new["status"]["conditions"] = decided;
            }
        }
        _ => return Ok(()),
    }
    date(&mut new["status"], &old["status"], &step.context.now_text());
    Ok(())
}

/// The conditions of a kind as they were, when there are as many.
fn keep_conditions(status: &mut Value, old: &Value, kind: &str) {
    let mut kept = items(old, "conditions").filter(|c| c["type"] == kind);
    let same = items(status, "conditions").filter(|c| c["type"] == kind).count()
        == items(old, "conditions").filter(|c| c["type"] == kind).count();
    if !same {
        return;
    }
    for condition in items_mut(status, "conditions").filter(|c| c["type"] == kind) {
        if let Some(before) = kept.next() {
            *condition = before.clone();
        }
    }
}

/// Conditions without times have the present one, or that of the same condition before.
fn date(status: &mut Value, old: &Value, now: &str) {
    for condition in items_mut(status, "conditions") {
        if condition["lastUpdateTime"].is_null() {
            condition["lastUpdateTime"] = now.into();
        }
        if condition["lastTransitionTime"].is_null() {
            let before = items(old, "conditions").find(|c| {
                c["type"] == condition["type"]
                    && c["status"] == condition["status"]
                    && !c["lastTransitionTime"].is_null()
            });
            condition["lastTransitionTime"] =
                before.map_or_else(|| now.into(), |c| c["lastTransitionTime"].clone());
        }
    }
}
