//! Values as JSON: the way back from expressions to objects.

use serde_json::{Map as JsonMap, Number, Value as Json};

use crate::error::Error;
use crate::value::{List, Map, Value};

impl Value<'_> {
    /// The value as JSON; types that JSON does not have become what they are written as.
    pub fn to_json(&self) -> Result<Json, Error> {
        Ok(match self {
            Value::Null | Value::Optional(None) => Json::Null,
            Value::Bool(b) => Json::Bool(*b),
            Value::Int(n) => Json::from(*n),
            Value::Uint(n) => Json::from(*n),
            Value::Double(n) => Json::Number(
                Number::from_f64(*n)
                    .ok_or_else(|| unsupported("a number that JSON cannot hold"))?,
            ),
            Value::String(text) => Json::String(text.to_string()),
            Value::Bytes(bytes) => Json::String(base64(bytes)),
            Value::Duration(span) => Json::String(span.to_string()),
            Value::Timestamp(time) => Json::String(time.to_string()),
            Value::Optional(Some(inner)) => inner.to_json()?,
            Value::Quantity(quantity) => Json::String(quantity.to_string()),
            Value::List(list) => Json::Array(items(list)?),
            Value::Map(map) => Json::Object(entries(map)?),
            Value::Struct(made) => {
                let fields = made.fields.iter();
                let fields = fields.map(|(name, value)| Ok((name.to_string(), value.to_json()?)));
                Json::Object(fields.collect::<Result<_, Error>>()?)
            }
            other => return Err(unsupported(other.type_of().name())),
        })
    }
}

fn unsupported(what: &str) -> Error {
    Error::new(format!("type conversion error from '{what}' to JSON"))
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn items(list: &List<'_>) -> Result<Vec<Json>, Error> {
    match list {
        List::Json(items, ..) => Ok(items.to_vec()),
        List::Made(items) => items.iter().map(Value::to_json).collect(),
    }
}

fn entries(map: &Map<'_>) -> Result<JsonMap<String, Json>, Error> {
    if let Map::Json(map, _) = map {
        return Ok((*map).clone());
    }
    let entries = map.entries().into_iter();
    let entries = entries.map(|(key, value)| {
        let name = key.as_str().map(str::to_owned).ok_or_else(|| {
            let ty = key.type_of();
            Error::new(format!("map key {key} is of type {}, not string", ty.name()))
        })?;
        Ok((name, value?.to_json()?))
    });
    entries.collect()
}
