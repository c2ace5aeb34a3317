//! Regular expressions. Both sides speak RE2's language; matching is linear in the text.

use regex::{Regex, RegexBuilder};

use super::Answer;
use super::Function;
use crate::error::Error;
use crate::value::Value;

/// The most memory a compiled pattern may take, in bytes.
const SIZE_MAX: usize = 4 << 20;

pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "matches" => |args| with(args, "matches"),
        "find" => |args| with(args, "find"),
        "findAll" => |args| with(args, "findAll"),
        _ => return None,
    })
}

pub(crate) fn regex(pattern: &str) -> Result<Regex, Error> {
    RegexBuilder::new(pattern)
        .size_limit(SIZE_MAX)
        .build()
        .map_err(|fault| Error::new(format!("error parsing regexp: {fault}")))
}

/// With a pattern that is known only now.
fn with<'v>(args: &[Value<'v>], name: &str) -> Answer<'v> {
    let (Value::String(_), Value::String(pattern)) = (args.first()?, args.get(1)?) else {
        return None;
    };
    let regex = match regex(pattern) {
        Ok(regex) => regex,
        Err(fault) if name == "matches" => return Some(Err(fault)),
        Err(fault) => return Some(Err(Error::new(format!("Illegal regex: {fault}")))),
    };
    Some(search(name, &regex, args))
}

/// `matches`, `find` or `findAll` in the first argument.
pub(crate) fn search<'v>(
    name: &str,
    regex: &Regex,
    args: &[Value<'v>],
) -> Result<Value<'v>, Error> {
    let text = args.first().and_then(Value::as_str).ok_or_else(Error::no_overload)?;
    match name {
        "matches" => Ok(Value::Bool(regex.is_match(text))),
        "find" => Ok(Value::text(regex.find(text).map_or("", |found| found.as_str()))),
        _ => {
            let most = match args.get(2) {
                Some(Value::Int(count)) => usize::try_from(*count).unwrap_or(usize::MAX),
                Some(_) => return Err(Error::no_overload()),
                None => usize::MAX,
            };
            Ok(Value::texts(regex.find_iter(text).take(most).map(|found| found.as_str())))
        }
    }
}
