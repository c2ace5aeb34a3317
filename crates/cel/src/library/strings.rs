//! Functions over text. Places in a text are counted in characters.

use super::{Answer, Function, either, formatting, lists};
use crate::error::Error;
use crate::value::{List, Value};

/// The longest text that `replace` and `join` make, in bytes: their cost does not bound it.
const RESULT_MAX: usize = 64 << 20;

pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "contains" => |args| two(args, |text, other| text.contains(other)),
        "startsWith" => |args| two(args, |text, other| text.starts_with(other)),
        "endsWith" => |args| two(args, |text, other| text.ends_with(other)),
        "charAt" => char_at,
        "indexOf" => |args| either(&[index_of, lists::index_of], args),
        "lastIndexOf" => |args| either(&[last_index_of, lists::last_index_of], args),
        "jsonpatch.escapeKey" => |args| one(args, |key| key.replace('~', "~0").replace('/', "~1")),
        "lowerAscii" => |args| one(args, str::to_ascii_lowercase),
        "upperAscii" => |args| one(args, str::to_ascii_uppercase),
        "trim" => |args| one(args, |text| text.trim().to_owned()),
        "replace" => replace,
        "split" => split,
        "substring" => substring,
        "join" => join,
        "strings.quote" => |args| one(args, quoted),
        "format" => |args| match args {
            [Value::String(format), Value::List(list)] => {
                Some(formatting::format(format, list).map(Value::text))
            }
            _ => None,
        },
        _ => return None,
    })
}

fn one<'v>(args: &[Value<'v>], f: fn(&str) -> String) -> Answer<'v> {
    match args {
        [Value::String(text)] => Some(Ok(Value::text(f(text)))),
        _ => None,
    }
}

fn two<'v>(args: &[Value<'v>], f: fn(&str, &str) -> bool) -> Answer<'v> {
    match args {
        [Value::String(text), Value::String(other)] => Some(Ok(Value::Bool(f(text, other)))),
        _ => None,
    }
}

fn out_of_range<T>(at: i64) -> Result<T, Error> {
    Err(Error::new(format!("index out of range: {at}")))
}

/// A place up to the text's end.
fn place(at: i64, length: usize) -> Result<usize, Error> {
    usize::try_from(at).ok().filter(|at| *at <= length).map_or_else(|| out_of_range(at), Ok)
}

fn char_at<'v>(args: &[Value<'v>]) -> Answer<'v> {
    let [Value::String(text), Value::Int(at)] = args else { return None };
    let characters: Vec<char> = text.chars().collect();
    Some(
        place(*at, characters.len())
            .map(|at| Value::text(characters.get(at).map(char::to_string).unwrap_or_default())),
    )
}

fn index_of<'v>(args: &[Value<'v>]) -> Answer<'v> {
    let (text, part, from) = match args {
        [Value::String(text), Value::String(part)] => (text, part, 0),
        [Value::String(text), Value::String(part), Value::Int(from)] => (text, part, *from),
        _ => return None,
    };
    if part.is_empty() {
        return Some(Ok(Value::Int(from)));
    }
    let (text, part): (Vec<char>, Vec<char>) = (text.chars().collect(), part.chars().collect());
    let Ok(from) = usize::try_from(from) else { return Some(out_of_range(from)) };
    let found = text.windows(part.len()).enumerate().skip(from).find(|(_, w)| *w == &part[..]);
    Some(Ok(Value::Int(found.map_or(-1, |(at, _)| at as i64))))
}

fn last_index_of<'v>(args: &[Value<'v>]) -> Answer<'v> {
    let (text, part, from) = match args {
        [Value::String(text), Value::String(part)] => (text, part, None),
        [Value::String(text), Value::String(part), Value::Int(from)] => (text, part, Some(*from)),
        _ => return None,
    };
    let (text, part): (Vec<char>, Vec<char>) = (text.chars().collect(), part.chars().collect());
    if part.is_empty() {
        return Some(Ok(Value::Int(from.unwrap_or(text.len() as i64))));
    }
    let last = match from.map(usize::try_from) {
        None => text.len(),
        Some(Ok(from)) if from >= text.len() => return Some(Ok(Value::Int(-1))),
        Some(Ok(from)) => from,
        Some(Err(_)) => return Some(out_of_range(from.unwrap_or(0))),
    };
    let windows: Vec<&[char]> = text.windows(part.len()).take(last.saturating_add(1)).collect();
    let found = windows.iter().rposition(|window| *window == &part[..]);
    Some(Ok(Value::Int(found.map_or(-1, |at| at as i64))))
}

fn replace<'v>(args: &[Value<'v>]) -> Answer<'v> {
    if let [Value::String(text), Value::String(from), Value::String(to), ..] = args
        && (text.len() / from.len().max(1) + 1).saturating_mul(to.len()) > RESULT_MAX
    {
        return Some(Err(too_long()));
    }
    let replaced = match args {
        [Value::String(text), Value::String(from), Value::String(to)] => text.replace(&**from, to),
        [Value::String(text), Value::String(from), Value::String(to), Value::Int(count)] => {
            match usize::try_from(*count) {
                Ok(count) => text.replacen(&**from, to, count),
                Err(_) => text.replace(&**from, to),
            }
        }
        _ => return None,
    };
    Some(Ok(Value::text(replaced)))
}

fn too_long() -> Error {
    Error::new("resulting string is too long")
}

fn split<'v>(args: &[Value<'v>]) -> Answer<'v> {
    let (text, separator, count) = match args {
        [Value::String(text), Value::String(separator)] => (text, separator, -1),
        [Value::String(text), Value::String(separator), Value::Int(count)] => {
            (text, separator, *count)
        }
        _ => return None,
    };
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let parts: Vec<&str> = match (count, separator.is_empty()) {
        (0, _) => Vec::new(),
        (_, false) => text.splitn(count, &**separator).collect(),
        (_, true) => characters(text, count),
    };
    Some(Ok(Value::texts(parts)))
}

/// Each character, the last part being the rest.
fn characters(text: &str, count: usize) -> Vec<&str> {
    let mut starts: Vec<usize> = text.char_indices().map(|(at, _)| at).take(count).collect();
    starts.push(text.len());
    let cut = |at: usize| &text[starts[at]..starts[at + 1]];
    (0..starts.len() - 1).map(cut).collect()
}

fn substring<'v>(args: &[Value<'v>]) -> Answer<'v> {
    let (text, start, end) = match args {
        [Value::String(text), Value::Int(start)] => (text, *start, None),
        [Value::String(text), Value::Int(start), Value::Int(end)] => (text, *start, Some(*end)),
        _ => return None,
    };
    let characters: Vec<char> = text.chars().collect();
    Some(cut(&characters, start, end).map(Value::text))
}

fn cut(characters: &[char], start: i64, end: Option<i64>) -> Result<String, Error> {
    if let Some(end) = end.filter(|end| start > *end) {
        return Err(Error::new(format!("invalid substring range. start: {start}, end: {end}")));
    }
    let start = place(start, characters.len())?;
    let end = end.map_or(Ok(characters.len()), |end| place(end, characters.len()))?;
    Ok(characters[start..end].iter().collect())
}

fn join<'v>(args: &[Value<'v>]) -> Answer<'v> {
    let (list, separator) = match args {
        [Value::List(list)] => (list, ""),
        [Value::List(list), Value::String(separator)] => (list, &**separator),
        _ => return None,
    };
    Some(joined(list, separator).map(Value::text))
}

fn joined(list: &List<'_>, separator: &str) -> Result<String, Error> {
    let mut out = String::new();
    for (at, item) in list.iter().enumerate() {
        if at > 0 {
            out.push_str(separator);
        }
        if out.len() > RESULT_MAX {
            return Err(too_long());
        }
        match item? {
            Value::String(text) => out.push_str(&text),
            other => return Err(Error::new(format!("join: invalid input: {other}"))),
        }
    }
    Ok(out)
}

fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for character in text.chars() {
        match character {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}
