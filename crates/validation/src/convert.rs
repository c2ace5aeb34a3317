//! Resources that are served in more than one form, and stored in one.

use std::borrow::Cow;

use api::registry::Resource;
use api::selector::FieldSelector;
use serde_json::{Map, Value};

use crate::{autoscaling, legacy};

/// A form that is not the stored one.
struct Form {
    group: &'static str,
    version: &'static str,
    name: &'static str,
    store: fn(&mut Value),
    show: fn(&mut Value),
}

static FORMS: [Form; 2] = [
    Form {
        group: "autoscaling",
        version: "v1",
        name: "horizontalpodautoscalers",
        store: autoscaling::to_hub,
        show: autoscaling::to_v1,
    },
    Form {
        group: "events.k8s.io",
        version: "v1",
        name: "events",
        store: |event| rename(event, "v1", |(new, old)| (new, old)),
        show: |event| rename(event, "events.k8s.io/v1", |(new, old)| (old, new)),
    },
];

/// Fields of `events.k8s.io`, and what the core group calls them.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("reportingController", "reportingComponent"),
];

/// An autoscaler in the words of `autoscaling/v2`.
pub fn autoscaler_v2(autoscaler: &Value) -> Cow<'_, Value> {
    let mut object = Cow::Borrowed(autoscaler);
    if object["apiVersion"] == "autoscaling/v1" {
        autoscaling::to_hub(object.to_mut());
    }
    object
}

fn form(row: &Resource) -> Option<&'static Form> {
    FORMS.iter().find(|f| f.group == row.group && f.version == row.version && f.name == row.name)
}

/// Is what is stored of this resource not what is served?
pub fn is_converted(row: &Resource) -> bool {
    row.legacy.is_some() || form(row).is_some()
}

/// Turns an object of the resource into what is stored.
pub fn to_stored(row: &Resource, object: &mut Value) {
    if row.legacy.is_some() {
        legacy::to_current(row, object);
    }
    if let Some(form) = form(row) {
        (form.store)(object);
    }
}

/// Turns a stored object into what the resource shows.
pub fn to_shown(row: &Resource, object: &mut Value) {
    if row.legacy.is_some() {
        legacy::to_legacy(row, object);
    }
    if let Some(form) = form(row) {
        (form.show)(object);
    }
}

/// What is checked of an object: autoscalers of version 1 as those of version 2, those of the past as those of
/// today.
pub(crate) fn checked<'v>(row: &Resource, object: &'v Value) -> Cow<'v, Value> {
    let is_checked_otherwise = row.legacy.is_some() || row.group == "autoscaling";
    if !is_checked_otherwise || !is_converted(row) {
        return Cow::Borrowed(object);
    }
    let mut object = object.clone();
    to_stored(row, &mut object);
    Cow::Owned(object)
}

/// An event of either group in the words of the core group.
pub fn core_event(event: &Value) -> Cow<'_, Value> {
    let mut event = Cow::Borrowed(event);
    if event["apiVersion"] != "v1" {
        rename(event.to_mut(), "v1", |(new, old)| (new, old));
    }
    event
}

type Names = (&'static str, &'static str);

fn rename(event: &mut Value, version: &str, way: fn(Names) -> Names) {
    let Some(map) = event.as_object_mut() else { return };
    if map.get("apiVersion").is_some_and(|v| v == version) {
        return;
    }
    let moved: Map<String, Value> = EVENT_FIELDS
        .into_iter()
        .map(way)
        .filter_map(|(from, to)| Some((to.to_owned(), map.remove(from)?)))
        .collect();
    map.extend(moved);
    // The core group always shows where it comes from and what it is about.
    if version == "v1" {
        for field in ["source", "involvedObject"] {
            map.entry(field).or_insert_with(|| Value::Object(Map::new()));
        }
    } else {
        // The core group shows them empty, this one not at all.
        for field in ["reportingController", "reportingInstance"] {
            if map.get(field).is_some_and(|value| value == "") {
                map.remove(field);
            }
        }
    }
    map.insert("apiVersion".into(), version.into());
}

/// Selectors name fields as the group that is asked names them; the index has the stored names.
pub fn rename_fields(row: &Resource, fields: &mut FieldSelector) -> Result<(), String> {
    if row.group != "events.k8s.io" {
        return Ok(());
    }
    for requirement in &mut fields.requirements {
        let field = requirement.field.as_str();
        requirement.field = match field {
            "reportingController" => "reportingComponent".to_owned(),
            "reason" | "type" | "metadata.name" | "metadata.namespace" => continue,
            _ => match field.strip_prefix("regarding.") {
                Some(rest) => format!("involvedObject.{rest}"),
                None => return Err(format!("field label not supported: {field}")),
            },
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use api::registry::Registry;
    use serde_json::json;

    #[test]
    fn an_event_is_the_same_in_both_groups() {
        let row = Registry::built_in().find("events.k8s.io", "v1", "events", "").expect("known");
        let mut event = json!({"apiVersion": "events.k8s.io/v1", "note": "n",
            "regarding": {"kind": "Pod"}, "deprecatedSource": {}, "deprecatedCount": 2});
        let shown = event.clone();
        super::to_stored(row, &mut event);
        assert_eq!(
            event,
            json!({"apiVersion": "v1", "message": "n", "involvedObject": {"kind": "Pod"},
                "source": {}, "count": 2})
        );
        super::to_shown(row, &mut event);
        assert_eq!(event, shown);
    }
}
