//! Events in their two groups: one stored object (in the form of the group `""`), two forms of it.

use api::Object;
use api::registry::Resource;
use api::selector::FieldSelector;
use serde_json::{Map, Value};

const OLD: &str = "v1";
const NEW: &str = "events.k8s.io/v1";

/// Names of the same fields in the group `""` and in `events.k8s.io`.
const NAMES: [(&str, &str); 7] = [
    ("count", "deprecatedCount"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("involvedObject", "regarding"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
];

/// Fields that are always there in the group `""`, and left out when empty in the other.
const OFTEN_EMPTY: [&str; 2] = ["reportingComponent", "reportingInstance"];

pub(crate) fn is_event(row: &Resource) -> bool {
    row.kind == "Event" && matches!(row.group, "" | "events.k8s.io")
}

/// Whether the object has another form than the row shows.
pub(crate) fn differs(row: &Resource, object: &Object) -> bool {
    let head = format!(r#"{{"apiVersion":"{}","#, row.api_version());
    is_event(row) && !object.json().starts_with(head.as_bytes())
}

/// Brings an event to the form of the row's group; leaves everything else.
pub(crate) fn show(row: &Resource, event: &mut Value) {
    if is_event(row) {
        convert(event, row.group == "events.k8s.io");
    }
}

/// Brings an event to the form it is stored in.
pub(crate) fn store(row: &Resource, event: &mut Value) {
    if is_event(row) {
        convert(event, false);
    }
}

fn convert(event: &mut Value, newer: bool) {
    let (from, to) = if newer { (OLD, NEW) } else { (NEW, OLD) };
    let Some(map) =
        event.as_object_mut().filter(|map| map.get("apiVersion").is_some_and(|v| v == from))
    else {
        return;
    };
    map.insert("apiVersion".into(), to.into());
    for (old, new) in NAMES {
        let (from, to) = if newer { (old, new) } else { (new, old) };
        if let Some(value) = map.remove(from) {
            map.insert(to.into(), value);
        }
    }
    if !newer {
        fill(map);
    } else {
        let empty = ["reportingController", "reportingInstance"];
        map.retain(|key, value| !(empty.contains(&key.as_str()) && value == ""));
    }
}

fn fill(map: &mut Map<String, Value>) {
    for key in OFTEN_EMPTY {
        map.entry(key).or_insert_with(|| "".into());
    }
}

/// Selectors of `events.k8s.io` name fields as that group does; the fault of one that does not.
pub(crate) fn rename_fields(row: &Resource, fields: &mut FieldSelector) -> Result<(), String> {
    if row.group != "events.k8s.io" {
        return Ok(());
    }
    for requirement in &mut fields.requirements {
        let field = requirement.field.as_str();
        let renamed = match field {
            "reportingController" => "reportingComponent".to_owned(),
            "reason" | "type" | "metadata.name" | "metadata.namespace" => continue,
            _ => match field.strip_prefix("regarding.") {
                Some(rest) => format!("involvedObject.{rest}"),
                None => return Err(format!("field label not supported: {field}")),
            },
        };
        requirement.field = renamed;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_forms_say_the_same() {
        let new = json!({"apiVersion": NEW, "kind": "Event", "note": "n", "reason": "r",
            "regarding": {"kind": "Pod"}, "deprecatedSource": {}, "reportingController": "c",
            "deprecatedCount": 2});
        let old = json!({"apiVersion": OLD, "kind": "Event", "message": "n", "reason": "r",
            "involvedObject": {"kind": "Pod"}, "source": {}, "reportingComponent": "c",
            "reportingInstance": "", "count": 2});
        let (mut there, mut back) = (new.clone(), old.clone());
        convert(&mut there, false);
        assert_eq!(there, old);
        convert(&mut back, true);
        assert_eq!(back, new);
        // What has the form already stays.
        convert(&mut back, true);
        assert_eq!(back, new);
    }
}
