//! Optional values.

use super::{Answer, Function};
use crate::error::Error;
use crate::value::{List, Value};

pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "optional.of" => |args| Some(Ok(Value::some(args.first()?.clone()))),
        "optional.ofNonZeroValue" => |args| {
            let value = args.first()?;
            Some(Ok(if is_zero(value) {
                Value::Optional(None)
            } else {
                Value::some(value.clone())
            }))
        },
        "optional.none" => |_| Some(Ok(Value::Optional(None))),
        "value" => |args| match args {
            [Value::Optional(Some(inner))] => Some(Ok((**inner).clone())),
            [Value::Optional(None)] => Some(Err(Error::new("optional.none() dereference"))),
            _ => None,
        },
        "hasValue" => |args| match args {
            [Value::Optional(inner)] => Some(Ok(Value::Bool(inner.is_some()))),
            _ => None,
        },
        "first" => |args| end(args, |_| 0),
        "last" => |args| end(args, |length| length - 1),
        "optional.unwrap" | "unwrapOpt" => |args| match args {
            [Value::List(list)] => Some(unwrapped(list)),
            _ => None,
        },
        _ => return None,
    })
}

fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Int(n) => *n == 0,
        Value::Uint(n) => *n == 0,
        Value::Double(n) => *n == 0.0,
        Value::Duration(span) => span.0 == 0,
        Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_) => {
            value.cost_size() == 0
        }
        _ => false,
    }
}

/// The item at one end of a list, if there is one.
fn end<'v>(args: &[Value<'v>], at: fn(usize) -> usize) -> Answer<'v> {
    match args {
        [Value::List(list)] if list.len() == 0 => Some(Ok(Value::Optional(None))),
        [Value::List(list)] => Some(list.get(at(list.len())).map(Value::some)),
        _ => None,
    }
}

fn unwrapped<'v>(list: &List<'v>) -> Result<Value<'v>, Error> {
    let mut items = Vec::new();
    for item in list.iter() {
        match item? {
            Value::Optional(inner) => items.extend(inner.map(|value| (*value).clone())),
            other => return Err(Error::new(format!("value {other} is not optional"))),
        }
    }
    Ok(Value::list(items))
}
