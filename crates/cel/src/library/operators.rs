//! Arithmetic, order, membership and size. Numbers overflow into errors.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Answer, Function};
use crate::declared::ListKind;
use crate::equal::{compare, equal};
use crate::error::Error;
use crate::eval::within;
use crate::types::Type;
use crate::value::{Key, List, Map, Value};

pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "_-_" => subtract,
        "_*_" => multiply,
        "_/_" => divide,
        "_%_" => modulo,
        "-_" => negate,
        "!_" => |args| match args {
            [Value::Bool(b)] => Some(Ok(Value::Bool(!b))),
            _ => None,
        },
        "_<_" => |args| ordered(args, Ordering::is_lt),
        "_<=_" => |args| ordered(args, Ordering::is_le),
        "_>_" => |args| ordered(args, Ordering::is_gt),
        "_>=_" => |args| ordered(args, Ordering::is_ge),
        "@in" => |args| Some(within(args.first()?, args.get(1)?)?.map(Value::Bool)),
        "size" => size,
        _ => return None,
    })
}

/// Whether values of a type have an operator at all.
pub(super) fn has(operator: &str, ty: &Type) -> bool {
    let number = matches!(ty, Type::Int | Type::Uint | Type::Double);
    match operator {
        "_+_" => {
            number
                || matches!(
                    ty,
                    Type::String | Type::Bytes | Type::Duration | Type::Timestamp | Type::List(_)
                )
        }
        "_-_" => number || matches!(ty, Type::Duration | Type::Timestamp),
        "_*_" | "_/_" => number,
        "_%_" => matches!(ty, Type::Int | Type::Uint),
        "-_" => matches!(ty, Type::Int | Type::Double | Type::Duration | Type::Bool),
        _ => {
            number
                || matches!(
                    ty,
                    Type::String | Type::Bytes | Type::Duration | Type::Timestamp | Type::Bool
                )
        }
    }
}

fn int(result: Option<i64>) -> Answer<'static> {
    Some(result.map(Value::Int).ok_or_else(|| Error::new("integer overflow")))
}

fn uint(result: Option<u64>) -> Answer<'static> {
    Some(result.map(Value::Uint).ok_or_else(|| Error::new("unsigned integer overflow")))
}

fn span(result: Option<i64>) -> Answer<'static> {
    let span = result.map(|nanos| Value::Duration(crate::time::Span(nanos)));
    Some(span.ok_or_else(|| Error::new("duration overflow")))
}

fn moment(result: Option<crate::time::Time>) -> Result<Value<'static>, Error> {
    result.map(Value::Timestamp).ok_or_else(|| Error::new("timestamp overflow"))
}

/// `a + b`; a list that nobody else holds grows in place.
pub(crate) fn add<'v>(left: Value<'v>, right: Value<'v>) -> Result<Value<'v>, Error> {
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => {
            int(a.checked_add(b)).unwrap_or_else(|| Err(Error::no_overload()))
        }
        (Value::Uint(a), Value::Uint(b)) => {
            uint(a.checked_add(b)).unwrap_or_else(|| Err(Error::no_overload()))
        }
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
        (Value::String(a), Value::String(b)) => Ok(Value::text([&*a, &*b].concat())),
        (Value::Bytes(a), Value::Bytes(b)) => Ok(Value::Bytes([&*a, &*b].concat().into())),
        (Value::Duration(a), Value::Duration(b)) => {
            span(a.0.checked_add(b.0)).unwrap_or_else(|| Err(Error::no_overload()))
        }
        (Value::Duration(a), Value::Timestamp(b)) => moment(b.plus(a)),
        (Value::Timestamp(a), Value::Duration(b)) => moment(a.plus(b)),
        (Value::List(a), Value::List(b)) => add_lists(a, &b),
        (left, right) => Err(super::no_overload("_+_", &[left, right])),
    }
}

fn add_lists<'v>(left: List<'v>, right: &List<'v>) -> Result<Value<'v>, Error> {
    let kind = match &left {
        List::Json(_, _, kind) => (*kind).clone(),
        List::Made(_) => ListKind::Atomic,
    };
    let mut items = match left {
        List::Made(items) => items,
        json => Arc::new(json.to_vec()?),
    };
    let grown = Arc::make_mut(&mut items);
    for item in right.iter() {
        let item = item?;
        match position(grown, &item, &kind) {
            Some(at) if matches!(kind, ListKind::Map(_)) => grown[at] = item,
            Some(_) => {}
            None => grown.push(item),
        }
    }
    Ok(Value::List(List::Made(items)))
}

/// Where a set or map of the data has the same item already.
fn position(items: &[Value<'_>], item: &Value<'_>, kind: &ListKind) -> Option<usize> {
    match kind {
        ListKind::Atomic => None,
        ListKind::Set => items.iter().position(|known| equal(known, item).unwrap_or(false)),
        ListKind::Map(keys) => {
            items.iter().position(|known| keys.iter().all(|key| same(known, item, key)))
        }
    }
}

fn same(a: &Value<'_>, b: &Value<'_>, key: &str) -> bool {
    match (a, b) {
        (Value::Map(Map::Json(a, _)), Value::Map(Map::Json(b, _))) => a.get(key) == b.get(key),
        _ => false,
    }
}

fn subtract<'v>(args: &[Value<'v>]) -> Answer<'v> {
    match args {
        [Value::Int(a), Value::Int(b)] => int(a.checked_sub(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_sub(*b)),
        [Value::Double(a), Value::Double(b)] => Some(Ok(Value::Double(a - b))),
        [Value::Duration(a), Value::Duration(b)] => span(a.0.checked_sub(b.0)),
        [Value::Timestamp(a), Value::Duration(b)] => Some(moment(a.minus(*b))),
        [Value::Timestamp(a), Value::Timestamp(b)] => span(a.since(*b).map(|span| span.0)),
        _ => None,
    }
}

fn multiply<'v>(args: &[Value<'v>]) -> Answer<'v> {
    match args {
        [Value::Int(a), Value::Int(b)] => int(a.checked_mul(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_mul(*b)),
        [Value::Double(a), Value::Double(b)] => Some(Ok(Value::Double(a * b))),
        _ => None,
    }
}

fn divide<'v>(args: &[Value<'v>]) -> Answer<'v> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => {
            Some(Err(Error::new("division by zero")))
        }
        [Value::Int(a), Value::Int(b)] => int(a.checked_div(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_div(*b)),
        [Value::Double(a), Value::Double(b)] => Some(Ok(Value::Double(a / b))),
        _ => None,
    }
}

fn modulo<'v>(args: &[Value<'v>]) -> Answer<'v> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => {
            Some(Err(Error::new("modulus by zero")))
        }
        [Value::Int(a), Value::Int(b)] => int(a.checked_rem(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_rem(*b)),
        _ => None,
    }
}

fn negate<'v>(args: &[Value<'v>]) -> Answer<'v> {
    match args {
        [Value::Int(a)] => int(a.checked_neg()),
        [Value::Double(a)] => Some(Ok(Value::Double(-a))),
        [Value::Duration(a)] => span(a.0.checked_neg()),
        _ => None,
    }
}

fn ordered<'v>(args: &[Value<'v>], wanted: fn(Ordering) -> bool) -> Answer<'v> {
    let [left, right] = args else { return None };
    if !has("_<_", &left.type_of()) {
        return None;
    }
    Some(compare(left, right).map(|order| Value::Bool(wanted(order))))
}

fn size<'v>(args: &[Value<'v>]) -> Answer<'v> {
    match args {
        [value @ (Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_))] => {
            Some(Ok(Value::Int(value.cost_size() as i64)))
        }
        _ => None,
    }
}

/// A map with one entry or another map's entries more; keys are not replaced.
pub(crate) fn map_insert<'v>(args: Vec<Value<'v>>) -> Result<Value<'v>, Error> {
    let mut args = args.into_iter();
    let (Some(Value::Map(map)), Some(first)) = (args.next(), args.next()) else {
        return Err(Error::no_overload());
    };
    let mut entries = match map {
        Map::Made(entries) | Map::Open(entries) => entries,
        json => Arc::new(made(&json)?),
    };
    let grown = Arc::make_mut(&mut entries);
    let new = match (first, args.next()) {
        (key, Some(value)) => vec![(key, value)],
        (Value::Map(more), None) => {
            more.entries().into_iter().map(|(k, v)| Ok((k, v?))).collect::<Result<_, Error>>()?
        }
        _ => return Err(Error::no_overload()),
    };
    for (key, value) in new {
        let known = Key::of(&key).ok_or_else(Error::no_overload)?;
        if grown.contains_key(&known) {
            return Err(Error::new(format!("insert failed: key {key} already exists")));
        }
        grown.insert(known, (key, value));
    }
    Ok(Value::Map(Map::Made(entries)))
}

fn made<'v>(map: &Map<'v>) -> Result<crate::value::Entries<'v>, Error> {
    let entries = map.entries().into_iter();
    entries
        .map(|(key, value)| Ok((Key::of(&key).ok_or_else(Error::no_overload)?, (key, value?))))
        .collect()
}
