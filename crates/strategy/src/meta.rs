//! `metadata` on its way in: what the server sets, what may not change.

use api::names;
pub use api::status::{cause, invalid, required};
pub use api::tree::{metadata_mut as of, metadata_text as text};
use k8s_openapi::api::core::v1::ObjectReference;
use serde_json::{Map, Value};

/// Longest `generateName` that leaves room for the suffix within a label.
const GENERATE_MAX: usize = 63 - names::SUFFIX_LENGTH;

/// A copy of the object without its `managedFields`, which may be larger than the rest.
pub fn without_managed_fields(object: &Value) -> Value {
    let Value::Object(fields) = object else { return object.clone() };
    let without = |map: &Map<String, Value>| -> Value {
        let kept = map.iter().filter(|(name, _)| *name != "managedFields");
        Value::Object(kept.map(|(name, value)| (name.clone(), value.clone())).collect())
    };
    let copied = fields.iter().map(|(name, value)| match value {
        Value::Object(meta) if name == "metadata" => (name.clone(), without(meta)),
        value => (name.clone(), value.clone()),
    });
    Value::Object(copied.collect())
}

/// What an event is about.
pub fn reference(object: &api::Object, api_version: &str, kind: &str) -> ObjectReference {
    let meta = object.meta();
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    ObjectReference {
        api_version: text(api_version),
        kind: text(kind),
        namespace: text(&meta.namespace),
        name: text(&meta.name),
        uid: text(&meta.uid),
        resource_version: Some(object.revision().to_string()),
        field_path: None,
    }
}

/// Makes the name that `generateName` asks for.
pub fn generate_name(meta: &mut Map<String, Value>) {
    let named = meta.get("name").and_then(Value::as_str).is_some_and(|n| !n.is_empty());
    if let (false, Some(base)) = (named, meta.get("generateName").and_then(Value::as_str))
        && !base.is_empty()
    {
        let base: String = base.chars().take(GENERATE_MAX).collect();
        meta.insert(
            "name".into(),
            format!("{base}{}", names::suffix(*uuid::Uuid::new_v4().as_bytes())).into(),
        );
    }
}
