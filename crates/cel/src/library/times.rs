//! Parts of moments, in UTC or a given zone, and of spans.

use super::{Answer, Function};
use crate::error::Error;
use crate::time::Civil;
use crate::value::Value;

pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "getFullYear" => |args| part(args, |c| c.year),
        "getMonth" => |args| part(args, |c| c.month - 1),
        "getDayOfYear" => |args| part(args, |c| c.day_of_year),
        "getDayOfMonth" => |args| part(args, |c| c.day - 1),
        "getDate" => |args| part(args, |c| c.day),
        "getDayOfWeek" => |args| part(args, |c| c.weekday),
        "getHours" => |args| span(args, 3_600_000_000_000).or_else(|| part(args, |c| c.hour)),
        "getMinutes" => |args| span(args, 60_000_000_000).or_else(|| part(args, |c| c.minute)),
        "getSeconds" => |args| span(args, 1_000_000_000).or_else(|| part(args, |c| c.second)),
        "getMilliseconds" => {
            |args| span(args, 1_000_000).or_else(|| part(args, |c| c.nanosecond / 1_000_000))
        }
        _ => return None,
    })
}

fn part<'v>(args: &[Value<'v>], of: fn(&Civil) -> i64) -> Answer<'v> {
    let (time, offset) = match args {
        [Value::Timestamp(time)] => (time, Ok(0)),
        [Value::Timestamp(time), Value::String(zone)] => (time, time.offset_in(zone)),
        _ => return None,
    };
    Some(offset.map(|offset| Value::Int(of(&time.civil(offset)))).map_err(Error::new))
}

/// A whole span in a unit of so many nanoseconds.
fn span<'v>(args: &[Value<'v>], unit: i64) -> Answer<'v> {
    match args {
        [Value::Duration(span)] => Some(Ok(Value::Int(span.0 / unit))),
        _ => None,
    }
}
