//! JSON data as values, by its declaration (apiserver `pkg/cel/common/valuesunstructured.go`).

use std::sync::{Arc, LazyLock};

use serde_json::Value as Json;

use crate::declared::{Decl, ListKind, Scalar, Shape};
use crate::error::Error;
use crate::time::{Span, Time};
use crate::value::{Key, List, Map, Text, Value};

/// JSON without a declaration.
static ANY: LazyLock<Decl> =
    LazyLock::new(|| Decl { nullable: true, ..Decl::scalar(Scalar::Any, u64::MAX, 1) });
static ATOMIC: ListKind = ListKind::Atomic;

/// A value of the data; data that is not what its declaration says is an error.
pub(crate) fn read<'v>(json: &'v Json, decl: &'v Decl) -> Result<Value<'v>, Error> {
    if json.is_null() {
        return match decl.nullable {
            true => Ok(Value::Null),
            false => Err(Error::new("invalid data, got null for schema with nullable=false")),
        };
    }
    match &decl.shape {
        Shape::Scalar(scalar) => read_scalar(json, *scalar),
        Shape::List(item, kind) => match json {
            Json::Array(items) => Ok(Value::List(List::Json(items, item, kind))),
            _ => Err(Error::new(
                "invalid data, expected an array for the provided schema with type=array",
            )),
        },
        Shape::Map(_) | Shape::Object(_) => match json {
            Json::Object(map) => Ok(Value::Map(Map::Json(map, decl))),
            _ => Err(Error::new(
                "invalid data, expected a map for the provided schema with type=object",
            )),
        },
    }
}

fn read_scalar(json: &Json, scalar: Scalar) -> Result<Value<'_>, Error> {
    match (scalar, json) {
        (Scalar::Any, _) => Ok(read_any(json)),
        (Scalar::Bool, Json::Bool(b)) => Ok(Value::Bool(*b)),
        (Scalar::Int | Scalar::IntOrString, Json::Number(n)) => whole(n)
            .map(Value::Int)
            .ok_or_else(|| Error::new("invalid data, expected int, got float64")),
        (Scalar::Double, Json::Number(n)) => Ok(Value::Double(n.as_f64().unwrap_or(f64::NAN))),
        (Scalar::String | Scalar::IntOrString, Json::String(text)) => {
            Ok(Value::String(Text::Borrowed(text)))
        }
        (_, Json::String(text)) => read_format(text, scalar),
        (Scalar::IntOrString, _) => Err(Error::new(
            "invalid data, expected XIntOrString value to be either a string or integer",
        )),
        (scalar, json) => Err(Error::new(format!(
            "invalid data, expected {}, got {}",
            word(scalar),
            go_type(json)
        ))),
    }
}

/// A whole number, also if it is written with a fraction of zero.
fn whole(n: &serde_json::Number) -> Option<i64> {
    n.as_i64().or_else(|| {
        let float = n.as_f64()?;
        (float.fract() == 0.0 && float.abs() < 9e18).then_some(float as i64)
    })
}

fn word(scalar: Scalar) -> &'static str {
    match scalar {
        Scalar::Bool => "bool",
        Scalar::Int => "int",
        Scalar::Double => "float",
        _ => "string",
    }
}

fn go_type(json: &Json) -> &'static str {
    match json {
        Json::Null => "<nil>",
        Json::Bool(_) => "bool",
        Json::Number(n) if n.is_f64() => "float64",
        Json::Number(_) => "int64",
        Json::String(_) => "string",
        Json::Array(_) => "[]interface {}",
        Json::Object(_) => "map[string]interface {}",
    }
}

fn read_format<'v>(text: &str, scalar: Scalar) -> Result<Value<'v>, Error> {
    match scalar {
        Scalar::Duration => Span::parse(text).map(Value::Duration).ok_or_else(|| {
            Error::new(format!("Invalid duration {text}: unable to parse {text:?}"))
        }),
        Scalar::Date => {
            Time::parse(&format!("{text}T00:00:00Z")).map(Value::Timestamp).ok_or_else(|| {
                Error::new(format!("Invalid date formatted string {text}: cannot parse"))
            })
        }
        Scalar::DateTime => Time::parse(text).map(Value::Timestamp).ok_or_else(|| {
            Error::new(format!("Invalid date-time formatted string {text}: cannot parse"))
        }),
        Scalar::Bytes => api::base64_canonical(text)
            .ok()
            .and_then(|_| decode(text))
            .map(Value::Bytes)
            .ok_or_else(|| {
                Error::new(format!("Invalid byte formatted string {text}: illegal base64 data"))
            }),
        _ => Err(Error::new(format!("invalid data, expected {}, got string", word(scalar)))),
    }
}

fn decode(text: &str) -> Option<Arc<[u8]>> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).ok().map(Into::into)
}

/// JSON by its own types.
pub(crate) fn read_any(json: &Json) -> Value<'_> {
    match json {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => match n.as_i64() {
            Some(n) => Value::Int(n),
            None => Value::Double(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::String(Text::Borrowed(text)),
        Json::Array(items) => Value::List(List::Json(items, &ANY, &ATOMIC)),
        Json::Object(map) => Value::Map(Map::Json(map, &ANY)),
    }
}

impl<'v> Map<'v> {
    /// The value of a key; keys that no entry can have are an error in data, as in upstream.
    pub(crate) fn find(&self, key: &Value<'_>) -> Result<Option<Value<'v>>, Error> {
        match self {
            Map::Made(entries) | Map::Open(entries) => {
                Ok(Key::of(key).and_then(|key| entries.get(&key)).map(|(_, value)| value.clone()))
            }
            Map::Json(map, decl) => match key.as_str() {
                Some(name) => find_in(map, decl, name),
                None if decl.is_any() => Ok(None),
                None => Err(Error::no_overload()),
            },
        }
    }

    /// Keys and values that expressions see.
    pub(crate) fn entries(&self) -> Vec<(Value<'v>, Result<Value<'v>, Error>)> {
        match self {
            Map::Made(entries) | Map::Open(entries) => {
                entries.values().map(|(key, value)| (key.clone(), Ok(value.clone()))).collect()
            }
            Map::Json(map, decl) => match &decl.shape {
                Shape::Object(fields) => fields
                    .iter()
                    .filter_map(|(name, field)| {
                        let json = map.get(&*field.name)?;
                        Some((Value::text(&**name), read(json, &field.decl)))
                    })
                    .collect(),
                _ => map
                    .iter()
                    .map(|(name, json)| (borrowed(name), read(json, below(decl))))
                    .collect(),
            },
        }
    }
}

fn borrowed(text: &str) -> Value<'_> {
    Value::String(Text::Borrowed(text))
}

/// The declaration of a map's values.
fn below(decl: &Decl) -> &Decl {
    match &decl.shape {
        Shape::Map(value) => value,
        _ => &ANY,
    }
}

fn find_in<'v>(
    map: &'v serde_json::Map<String, Json>,
    decl: &'v Decl,
    name: &str,
) -> Result<Option<Value<'v>>, Error> {
    match &decl.shape {
        Shape::Object(fields) => {
            let Some(field) = fields.get(name) else { return Ok(None) };
            // Null in an object is as good as absent.
            let json = map.get(&*field.name).filter(|json| !json.is_null());
            json.map(|json| read(json, &field.decl)).transpose()
        }
        _ => map.get(name).map(|json| read(json, below(decl))).transpose(),
    }
}
