//! Small steps on JSON trees that every kind's rules take.

use serde_json::Value;

/// The text of a value, empty when it is none.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

/// Items of a list field, none when it is absent.
pub fn items<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

pub fn items_mut<'a>(value: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    let list = value.get_mut(key).and_then(Value::as_array_mut);
    list.into_iter().flatten()
}

/// Sets a field that is absent.
pub fn set_default(object: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(map) = object.as_object_mut() {
        let unset = map.get(key).is_none_or(|v| v.is_null() || v == "");
        if unset {
            map.insert(key.into(), value.into());
        }
    }
}
