//! The strategic merge patch from the status the API has to the one it should have.

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Map, Value, json};

/// Keys whose lists strategic merge would join entry by entry, though the node means the whole list.
const WHOLE_LISTS: &[&str] = &["podIPs", "hostIPs"];
/// Keys that are removed when the node no longer has a value.
const REMOVABLE: &[&str] = &["reason", "message"];

/// `None` when nothing differs.
pub(crate) fn patch(pod: &Pod, new: &PodStatus) -> Option<Value> {
    let old = object(pod.status.as_ref());
    let new = object(Some(new));
    let mut changes = Map::new();
    for (key, value) in &new {
        if old.get(key) == Some(value) {
            continue;
        }
        let value = match key.as_str() {
            "conditions" => match conditions(old.get(key), value) {
                Some(changed) => changed,
                None => continue,
            },
            k if WHOLE_LISTS.contains(&k) => {
                let mut list = value.as_array().cloned().unwrap_or_default();
                list.push(json!({"$patch": "replace"}));
                Value::Array(list)
            }
            _ => value.clone(),
        };
        changes.insert(key.clone(), value);
    }
    for key in REMOVABLE.iter().filter(|k| old.contains_key(**k) && !new.contains_key(**k)) {
        changes.insert((*key).to_owned(), Value::Null);
    }
    let uid = pod.metadata.uid.as_deref().unwrap_or("");
    (!changes.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": changes}))
}

fn object(status: Option<&PodStatus>) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// Only the conditions that changed; keys they lost are nulled.
fn conditions(old: Option<&Value>, new: &Value) -> Option<Value> {
    let old = old.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut changed = Vec::new();
    for condition in new.as_array().into_iter().flatten() {
        let before = old.iter().find(|c| c["type"] == condition["type"]);
        if before == Some(condition) {
            continue;
        }
        let mut condition = condition.clone();
        for key in before.and_then(Value::as_object).into_iter().flat_map(Map::keys) {
            if condition.get(key).is_none() && key != "lastProbeTime" {
                condition[key] = Value::Null;
            }
        }
        changed.push(condition);
    }
    let kept = |c: &Value| new.as_array().into_iter().flatten().any(|n| n["type"] == c["type"]);
    for gone in old.iter().filter(|c| !kept(c)) {
        changed.push(json!({"$patch": "delete", "type": gone["type"]}));
    }
    (!changed.is_empty()).then_some(Value::Array(changed))
}
