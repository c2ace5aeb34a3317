//! `metadata.managedFields` as text within a tree.
//!
//! Managers are often half of an object, and most of the way from a request to the store nobody looks at them. While a
//! tree is *folded*, the list is one string with its JSON text. [`Draft`](crate::Draft) writes that text as it is,
//! and responses are unfolded; code that reads the whole tree before that unfolds it first.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Whether a text is a folded list. Webhooks and other writers may put any text in the place of the list, which stays
/// a text.
pub(crate) fn is_folded(text: &str) -> bool {
    text.starts_with('[') && serde_json::from_str::<&RawValue>(text).is_ok()
}

/// The folded list of a tree, if it is folded.
pub fn folded(object: &Value) -> Option<&str> {
    let text = object.get("metadata")?.get("managedFields")?.as_str()?;
    is_folded(text).then_some(text)
}

/// Turns a folded list back into a tree.
pub fn unfold(object: &mut Value) {
    let Some(list) = object.pointer_mut("/metadata/managedFields") else { return };
    if let Some(tree) = list.as_str().filter(|text| is_folded(text)).map(serde_json::from_str) {
        *list = tree.unwrap_or_default();
    }
}

/// The tree, unfolded.
pub fn unfolded(object: &Value) -> Cow<'_, Value> {
    if folded(object).is_none() {
        return Cow::Borrowed(object);
    }
    let mut copy = object.clone();
    unfold(&mut copy);
    Cow::Owned(copy)
}

/// Reads an object into a folded tree.
pub(crate) fn read(json: &[u8]) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let tree = Level::Object.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(tree)
}

/// Where a map stands on the way to the managers.
#[derive(Clone, Copy)]
enum Level {
    Object,
    Metadata,
}

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of the API")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let value = match (self, key.as_str()) {
                (Level::Object, "metadata") => access.next_value_seed(Level::Metadata)?,
                (Level::Metadata, "managedFields") => {
                    let text = access.next_value::<&RawValue>()?.get();
                    match text.starts_with('[') {
                        true => text.into(),
                        false => serde_json::from_str(text).unwrap_or_default(),
                    }
                }
                _ => access.next_value()?,
            };
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Object;

    #[test]
    fn a_folded_tree_encodes_and_unfolds_to_the_same_object() {
        let whole = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {
            "name": "a", "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {}}}],
        }});
        let mut folded = whole.clone();
        folded["metadata"]["managedFields"] = whole["metadata"]["managedFields"].to_string().into();
        assert_eq!(Object::new(&folded, 1, &[]).json(), Object::new(&whole, 1, &[]).json());
        assert_eq!(*unfolded(&folded), whole);
        unfold(&mut folded);
        assert_eq!(folded, whole);
        assert!(matches!(unfolded(&whole), Cow::Borrowed(_)));
        let stored = Object::new(&whole, 1, &[]);
        let mut read = stored.to_folded_value();
        assert!(super::folded(&read).is_some());
        unfold(&mut read);
        assert_eq!(read, stored.to_value());
    }
}
