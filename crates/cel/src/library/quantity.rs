//! Quantities, and what they share by name with versions.

use std::cmp::Ordering;

use api::quantity::Quantity;

use super::{Answer, Function};
use crate::error::Error;
use crate::value::Value;

pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "quantity" => |args| {
            let [Value::String(text)] = args else { return None };
            Some(Quantity::parse(text).map(Value::Quantity).map_err(|e| Error::new(e.to_string())))
        },
        "isQuantity" => |args| {
            let [Value::String(text)] = args else { return None };
            Some(Ok(Value::Bool(Quantity::parse(text).is_ok())))
        },
        "sign" => |args| {
            let [Value::Quantity(quantity)] = args else { return None };
            Some(Ok(Value::Int(order(quantity, &Quantity::ZERO) as i64)))
        },
        "isGreaterThan" => |args| compared(args, |order| Value::Bool(order.is_gt())),
        "isLessThan" => |args| compared(args, |order| Value::Bool(order.is_lt())),
        "compareTo" => |args| compared(args, |order| Value::Int(order as i64)),
        "asApproximateFloat" => |args| {
            let [Value::Quantity(quantity)] = args else { return None };
            Some(Ok(Value::Double(approximate(quantity))))
        },
        "asInteger" => |args| {
            let [Value::Quantity(quantity)] = args else { return None };
            let fault = || Error::new("cannot convert value to integer");
            Some(whole(quantity).map(Value::Int).ok_or_else(fault))
        },
        "isInteger" => |args| {
            let [Value::Quantity(quantity)] = args else { return None };
            Some(Ok(Value::Bool(whole(quantity).is_some())))
        },
        "add" => |args| arithmetic(args, |a, b| a + b),
        "sub" => |args| arithmetic(args, |a, b| a - b),
        _ => return None,
    })
}

fn order(a: &Quantity, b: &Quantity) -> Ordering {
    a.partial_cmp(b).unwrap_or(Ordering::Equal)
}

fn compared<'v>(args: &[Value<'v>], shown: fn(Ordering) -> Value<'static>) -> Answer<'v> {
    match args {
        [Value::Quantity(a), Value::Quantity(b)] => Some(Ok(shown(order(a, b)))),
        [Value::Semver(a), Value::Semver(b)] => Some(Ok(shown(a.order(b)))),
        _ => None,
    }
}

/// The number of units, if it is a whole one.
fn whole(quantity: &Quantity) -> Option<i64> {
    let units = quantity.value();
    (order(quantity, &Quantity::from_units(units)) == Ordering::Equal).then_some(units)
}

fn approximate(quantity: &Quantity) -> f64 {
    let text = quantity.to_string();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(text.len());
    let (digits, suffix) = text.split_at(end);
    let factor = match suffix {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        "Pi" => 1_125_899_906_842_624.0,
        "Ei" => 1_152_921_504_606_846_976.0,
        exponent => format!("1{exponent}").parse().unwrap_or(1.0),
    };
    digits.parse::<f64>().unwrap_or(0.0) * factor
}

fn arithmetic<'v>(args: &[Value<'v>], f: fn(Quantity, Quantity) -> Quantity) -> Answer<'v> {
    let (a, b) = match args {
        [Value::Quantity(a), Value::Quantity(b)] => (*a, *b),
        [Value::Quantity(a), Value::Int(units)] => (*a, Quantity::from_units(*units)),
        _ => return None,
    };
    Some(Ok(Value::Quantity(f(a, b))))
}
