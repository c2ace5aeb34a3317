//! Conversions between types.

use std::sync::Arc;

use super::{Answer, Function};
use crate::error::Error;
use crate::time::{Span, Time};
use crate::types::Type;
use crate::value::Value;

pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "type" => |args| Some(Ok(Value::Type(Arc::new(args.first()?.type_of())))),
        "dyn" => |args| Some(Ok(args.first()?.clone())),
        "bool" => |args| match args {
            [value @ Value::Bool(_)] => Some(Ok(value.clone())),
            [Value::String(text)] => Some(read(parse_bool(text).map(Value::Bool), &Type::Bool)),
            _ => None,
        },
        "bytes" => |args| match args {
            [value @ Value::Bytes(_)] => Some(Ok(value.clone())),
            [Value::String(text)] => Some(Ok(Value::Bytes(text.as_bytes().into()))),
            _ => None,
        },
        "double" => double,
        "int" => int,
        "uint" => uint,
        "string" => string,
        "duration" => duration,
        "timestamp" => timestamp,
        _ => return None,
    })
}

fn fault(from: &Type, to: &Type) -> Error {
    Error::new(format!("type conversion error from '{}' to '{}'", from.name(), to.name()))
}

fn read<'v>(parsed: Option<Value<'v>>, to: &Type) -> Result<Value<'v>, Error> {
    parsed.ok_or_else(|| fault(&Type::String, to))
}

/// As Go's `strconv.ParseBool`.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

fn parse_double(text: &str) -> Option<f64> {
    let infinite = text.trim_start_matches(['+', '-']).to_ascii_lowercase().starts_with("inf");
    text.parse::<f64>().ok().filter(|n| infinite || !n.is_infinite())
}

fn double<'v>(args: &[Value<'v>]) -> Answer<'v> {
    Some(match args {
        [value @ Value::Double(_)] => Ok(value.clone()),
        [Value::Int(n)] => Ok(Value::Double(*n as f64)),
        [Value::Uint(n)] => Ok(Value::Double(*n as f64)),
        [Value::String(text)] => read(parse_double(text).map(Value::Double), &Type::Double),
        _ => return None,
    })
}

fn int<'v>(args: &[Value<'v>]) -> Answer<'v> {
    const EDGE: f64 = 9_223_372_036_854_775_808.0;
    let overflow = || Error::new("integer overflow");
    Some(match args {
        [value @ Value::Int(_)] => Ok(value.clone()),
        // The bounds themselves are not exact in floating point and are refused.
        [Value::Double(n)] if *n > -EDGE && *n < EDGE => Ok(Value::Int(*n as i64)),
        [Value::Double(_)] => Err(overflow()),
        [Value::Uint(n)] => i64::try_from(*n).map(Value::Int).map_err(|_| overflow()),
        [Value::Duration(span)] => Ok(Value::Int(span.0)),
        [Value::Timestamp(time)] => Ok(Value::Int(time.seconds())),
        [Value::String(text)] => read(text.parse().ok().map(Value::Int), &Type::Int),
        _ => return None,
    })
}

fn uint<'v>(args: &[Value<'v>]) -> Answer<'v> {
    const EDGE: f64 = 18_446_744_073_709_551_616.0;
    let overflow = || Error::new("unsigned integer overflow");
    Some(match args {
        [value @ Value::Uint(_)] => Ok(value.clone()),
        [Value::Double(n)] if *n >= 0.0 && *n < EDGE => Ok(Value::Uint(*n as u64)),
        [Value::Double(_)] => Err(overflow()),
        [Value::Int(n)] => u64::try_from(*n).map(Value::Uint).map_err(|_| overflow()),
        [Value::String(text)] => {
            let plain = !text.starts_with('+');
            read(text.parse().ok().filter(|_| plain).map(Value::Uint), &Type::Uint)
        }
        _ => return None,
    })
}

fn string<'v>(args: &[Value<'v>]) -> Answer<'v> {
    let [value] = args else { return None };
    Some(match value {
        Value::String(_) => Ok(value.clone()),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Value::text(text)),
            Err(_) => Err(Error::new("invalid UTF-8 in bytes, cannot convert to string")),
        },
        Value::Double(n) => Ok(Value::text(number(*n))),
        Value::Bool(_)
        | Value::Int(_)
        | Value::Timestamp(_)
        | Value::Duration(_)
        | Value::Ip(_)
        | Value::Cidr(_) => Ok(Value::text(plain(value))),
        Value::Uint(n) => Ok(Value::text(n.to_string())),
        _ => return None,
    })
}

fn plain(value: &Value<'_>) -> String {
    match value {
        Value::Timestamp(time) => time.to_string(),
        Value::Duration(span) => span.to_string(),
        other => other.to_string(),
    }
}

/// As Go's `%g`: the shortest digits, with an exponent from a million on and below a ten-thousandth.
pub(crate) fn number(n: f64) -> String {
    if n.is_nan() {
        return "NaN".to_owned();
    }
    if n.is_infinite() {
        return if n > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{n:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if n != 0.0 && !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    format!("{n}")
}

fn duration<'v>(args: &[Value<'v>]) -> Answer<'v> {
    Some(match args {
        [value @ Value::Duration(_)] => Ok(value.clone()),
        [Value::String(text)] => read(Span::parse(text).map(Value::Duration), &Type::Duration),
        [Value::Int(_)] => Err(fault(&Type::Int, &Type::Duration)),
        _ => return None,
    })
}

fn timestamp<'v>(args: &[Value<'v>]) -> Answer<'v> {
    Some(match args {
        [value @ Value::Timestamp(_)] => Ok(value.clone()),
        [Value::String(text)] => read(Time::parse(text).map(Value::Timestamp), &Type::Timestamp),
        [Value::Int(seconds)] => Time::from_seconds(*seconds)
            .map(Value::Timestamp)
            .ok_or_else(|| Error::new("timestamp overflow")),
        _ => return None,
    })
}
