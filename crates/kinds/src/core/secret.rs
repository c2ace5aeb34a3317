//! Secrets.

use serde_json::{Value, json};

use crate::{Kind, PLAIN};

pub(crate) static KIND: Kind = Kind { default, ..PLAIN };

/// `stringData` is written into `data` and not kept.
fn default(object: &mut Value) {
    use base64::Engine as _;
    let Some(map) = object.as_object_mut() else { return };
    let Some(Value::Object(plain)) = map.remove("stringData") else { return };
    let data = map.entry("data").or_insert_with(|| json!({}));
    for (key, text) in plain {
        let bytes = text.as_str().unwrap_or("").as_bytes();
        data[key] = base64::engine::general_purpose::STANDARD.encode(bytes).into();
    }
}
