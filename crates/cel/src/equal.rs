//! Which values are equal, and in which order they are. Numbers compare by what they are, not by
//! their types. Lists and maps of the data cannot be compared with anything else, and lists that are
//! declared sets or maps compare without order.

use std::cmp::Ordering;

use serde_json::Value as Json;

use crate::declared::{Decl, ListKind, Shape};
use crate::error::Error;
use crate::json;
use crate::value::{List, Map, Struct, Value};

pub(crate) fn equal(a: &Value<'_>, b: &Value<'_>) -> Result<bool, Error> {
    Ok(match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Null, _) | (_, Value::Null) => false,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::String(a), Value::String(b)) => **a == **b,
        (Value::Bytes(a), Value::Bytes(b)) => a == b,
        (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
        (Value::Type(a), Value::Type(b)) => a.name() == b.name(),
        (Value::Optional(a), Value::Optional(b)) => match (a, b) {
            (Some(a), Some(b)) => equal(a, b)?,
            (None, None) => true,
            _ => false,
        },
        (Value::List(a), Value::List(b)) => lists(a, b)?,
        (Value::List(List::Json(..)), _) | (Value::Map(Map::Json(..)), _)
            if !is_map(a, b) && is_declared(a) =>
        {
            return Err(Error::no_overload());
        }
        (Value::Map(a), Value::Map(b)) => maps(a, b)?,
        (Value::Quantity(a), Value::Quantity(b)) => a.partial_cmp(b) == Some(Ordering::Equal),
        (Value::Ip(a), Value::Ip(b)) => a == b,
        (Value::Cidr(a), Value::Cidr(b)) => a == b,
        (Value::Url(a), Value::Url(b)) => a.text == b.text,
        (Value::Semver(a), Value::Semver(b)) => a.order(b) == Ordering::Equal,
        (Value::Format(a), Value::Format(b)) => a.name == b.name,
        (Value::Struct(a), Value::Struct(b)) => structs(a, b)?,
        _ if a.is_opaque() => return Err(Error::no_overload()),
        _ => matches!(numbers(a, b), Some(Ok(Ordering::Equal))),
    })
}

/// Data without a declaration compares as values that expressions make.
fn is_declared(value: &Value<'_>) -> bool {
    match value {
        Value::List(List::Json(_, decl, _)) | Value::Map(Map::Json(_, decl)) => !decl.is_any(),
        _ => false,
    }
}

fn is_map(a: &Value<'_>, b: &Value<'_>) -> bool {
    matches!((a, b), (Value::Map(_), Value::Map(_)))
}

/// The order of two numbers; `None` if one is none.
fn numbers(a: &Value<'_>, b: &Value<'_>) -> Option<Result<Ordering, Error>> {
    let whole = |value: &Value<'_>| match value {
        Value::Int(n) => Some(i128::from(*n)),
        Value::Uint(n) => Some(i128::from(*n)),
        _ => None,
    };
    let order = match (a, b, whole(a), whole(b)) {
        (_, _, Some(a), Some(b)) => Some(a.cmp(&b)),
        (Value::Double(a), Value::Double(b), ..) => a.partial_cmp(b),
        (Value::Double(a), _, _, Some(b)) => with_double(*a, b),
        (_, Value::Double(b), Some(a), _) => with_double(*b, a).map(Ordering::reverse),
        _ => return None,
    };
    Some(order.ok_or_else(|| Error::new("NaN values cannot be ordered")))
}

/// A fraction beside a whole number: exact outside, by floating point inside, as upstream.
fn with_double(double: f64, whole: i128) -> Option<Ordering> {
    const BEYOND: f64 = 18_446_744_073_709_551_616.0;
    match double {
        d if d.is_nan() => None,
        d if d < -BEYOND => Some(Ordering::Less),
        d if d > BEYOND => Some(Ordering::Greater),
        d => d.partial_cmp(&(whole as f64)),
    }
}

/// The order of two values of one kind.
pub(crate) fn compare(a: &Value<'_>, b: &Value<'_>) -> Result<Ordering, Error> {
    match (a, b) {
        (Value::String(a), Value::String(b)) => Ok((**a).cmp(&**b)),
        (Value::Bool(a), Value::Bool(b)) => Ok(a.cmp(b)),
        (Value::Bytes(a), Value::Bytes(b)) => Ok(a.cmp(b)),
        (Value::Duration(a), Value::Duration(b)) => Ok(a.cmp(b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => Ok(a.cmp(b)),
        _ => numbers(a, b).unwrap_or_else(|| Err(Error::no_overload())),
    }
}

fn lists(a: &List<'_>, b: &List<'_>) -> Result<bool, Error> {
    if a.len() != b.len() {
        return Ok(false);
    }
    match a {
        List::Json(_, _, ListKind::Set) => all_within(b, a),
        List::Json(items, item, ListKind::Map(keys)) => by_keys(items, item, keys, b),
        _ => in_order(a, b),
    }
}

fn in_order(a: &List<'_>, b: &List<'_>) -> Result<bool, Error> {
    let made = match a {
        List::Json(_, item, _) => item.is_any(),
        List::Made(_) => true,
    };
    for at in 0..a.len() {
        match equal(&a.get(at)?, &b.get(at)?) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            // Upstream overlooks errors in lists that expressions made.
            Err(_) if made => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn all_within(items: &List<'_>, list: &List<'_>) -> Result<bool, Error> {
    for item in items.iter() {
        if !contains(list, &item?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn by_keys(
    items: &[Json],
    item: &Decl,
    keys: &[Box<str>],
    other: &List<'_>,
) -> Result<bool, Error> {
    for theirs in other.iter() {
        let theirs = theirs?;
        let same = |ours: &&Json| keys.iter().all(|key| key_fits(ours, &theirs, key));
        let Some(ours) = items.iter().find(same) else { return Ok(false) };
        if !equal(&json::read(ours, item)?, &theirs)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a field of an item of the data is the same in another value.
fn key_fits(ours: &Json, theirs: &Value<'_>, key: &str) -> bool {
    match theirs {
        Value::Map(Map::Json(map, _)) => ours.get(key) == map.get(key),
        _ => false,
    }
}

/// Whether a list holds a value. Of data, what cannot be compared is an error unless another item is
/// equal.
pub(crate) fn contains(list: &List<'_>, value: &Value<'_>) -> Result<bool, Error> {
    let of_data = matches!(list, List::Json(_, item, _) if !item.is_any());
    let mut fault = None;
    for item in list.iter() {
        match item.and_then(|item| equal(&item, value)) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(error) => fault = fault.or(Some(error)),
        }
    }
    fault.filter(|_| of_data).map_or(Ok(false), Err)
}

fn structs(a: &Struct<'_>, b: &Struct<'_>) -> Result<bool, Error> {
    if a.name != b.name || !a.fields.keys().eq(b.fields.keys()) {
        return Ok(false);
    }
    for (ours, theirs) in a.fields.values().zip(b.fields.values()) {
        if !equal(ours, theirs)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn maps(a: &Map<'_>, b: &Map<'_>) -> Result<bool, Error> {
    if a.len() != b.len() {
        return Ok(false);
    }
    for (key, value) in a.entries() {
        let Some(theirs) = b.find(&key)? else {
            // Null in an object is as good as absent, on both sides.
            if matches!(value, Ok(Value::Null)) {
                continue;
            }
            return Ok(false);
        };
        if !equal(&value?, &theirs)? {
            return Ok(false);
        }
    }
    Ok(match (a, b) {
        (Map::Json(a, decl), Map::Json(b, _)) => undeclared_equal(a, b, decl),
        _ => true,
    })
}

/// Fields that expressions do not see count as well.
fn undeclared_equal(
    a: &serde_json::Map<String, Json>,
    b: &serde_json::Map<String, Json>,
    decl: &Decl,
) -> bool {
    let Shape::Object(fields) = &decl.shape else { return true };
    let declared: Vec<&str> = fields.values().map(|field| &*field.name).collect();
    a.iter()
        .filter(|(name, _)| !declared.contains(&name.as_str()))
        .all(|(name, v)| b.get(name) == Some(v))
}
