//! Volume claims: a node writes how large the volume is and how its growth goes, nothing else.

use serde_json::Value;

use super::super::bare;
use super::{Asked, Judgement, Operation, forbid};

/// What a node reports.
const REPORTED: [&str; 4] =
    ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"];

pub(super) fn judge(asked: &Asked<'_>, subresource: &str) -> Judgement {
    if subresource != "status" {
        return forbid("may only update PVC status");
    }
    if asked.operation != Operation::Update {
        return forbid(format!("unexpected operation {:?}", asked.operation.name()));
    }
    let (old, new) = (rest(asked.old), rest(asked.object));
    if old == new {
        return Ok(());
    }
    forbid(format!(
        "node {:?} is not allowed to update fields other than status.quantity and status.conditions: {}",
        asked.node,
        difference(&old, &new, "").join(", ")
    ))
}

/// A claim without what a node reports, its revision and its managers.
fn rest(claim: &Value) -> Value {
    let mut claim = claim.clone();
    if let Some(status) = claim.get_mut("status").and_then(Value::as_object_mut) {
        REPORTED.iter().for_each(|key| drop(status.remove(*key)));
    }
    if let Some(meta) = claim.get_mut("metadata").and_then(Value::as_object_mut) {
        ["resourceVersion", "managedFields"].iter().for_each(|key| drop(meta.remove(*key)));
    }
    bare(&claim).unwrap_or_default()
}

/// Paths of the fields that differ.
fn difference(old: &Value, new: &Value, at: &str) -> Vec<String> {
    let (Some(a), Some(b)) = (old.as_object(), new.as_object()) else {
        return if old == new { Vec::new() } else { vec![at.to_owned()] };
    };
    let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let below = |key: &String| if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
    keys.into_iter().flat_map(|key| difference(&old[key], &new[key], &below(key))).collect()
}
