//! Metadata of objects that are JSON trees.

use serde_json::{Map, Value, json};

/// The `metadata` of an object, made when it is absent or no map.
///
/// # Panics
/// When the object is no map; a decoded object is one.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    let map = object.as_object_mut().expect("a decoded object is a map");
    let meta = map.entry("metadata").or_insert_with(|| json!({}));
    if !meta.is_object() {
        *meta = json!({});
    }
    meta.as_object_mut().expect("just made so")
}

/// A text of the metadata; empty when it is absent.
pub fn metadata_text<'a>(object: &'a Value, key: &str) -> &'a str {
    object["metadata"][key].as_str().unwrap_or("")
}
