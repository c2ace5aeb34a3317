//! One case: an expression, its variables, and the answer that it must have.

use std::sync::Arc;

use super::textproto::{Field, Message, all, get, text};
use crate::value::{Key, Map, Value};
use crate::{Binding, Env, Objects, PER_CALL_LIMIT, Type};

pub(super) struct Case {
    /// `file/section/test`.
    pub(super) name: String,
    pub(super) expression: String,
    container: String,
    checks: bool,
    variables: Vec<(String, Option<Type>)>,
    bindings: Vec<(String, Option<Value<'static>>)>,
    wanted: Wanted,
}

enum Wanted {
    Value(Option<Value<'static>>, Option<Type>),
    Error,
    /// Something that this crate has no notion of.
    Other,
}

/// The cases of a file.
pub(super) fn read(file: &Message) -> Vec<Case> {
    let name = text(file, "name");
    let sections = all(file, "section");
    let of_section = |section| {
        let place = format!("{name}/{}", text(section, "name"));
        all(section, "test").map(move |test| case(&place, test)).collect::<Vec<_>>()
    };
    sections.flat_map(of_section).collect()
}

fn case(place: &str, test: &Message) -> Case {
    let variables = all(test, "type_env").map(|decl| {
        let ty = all(decl, "ident").next().and_then(|ident| all(ident, "type").next());
        (text(decl, "name"), ty.and_then(of_type))
    });
    let bindings = all(test, "bindings").map(|binding| {
        let value = all(binding, "value").next().and_then(|outer| all(outer, "value").next());
        (text(binding, "key"), value.and_then(of_value))
    });
    Case {
        name: format!("{place}/{}", text(test, "name")),
        expression: text(test, "expr"),
        container: text(test, "container"),
        checks: text(test, "disable_check") != "true",
        variables: variables.collect(),
        bindings: bindings.collect(),
        wanted: wanted(test),
    }
}

fn wanted(test: &Message) -> Wanted {
    if get(test, "eval_error").is_some() || get(test, "any_eval_errors").is_some() {
        return Wanted::Error;
    }
    if let Some(typed) = all(test, "typed_result").next() {
        let value = all(typed, "result").next().map(of_value);
        let ty = all(typed, "deduced_type").next().and_then(of_type);
        return match (value, ty) {
            (Some(None), _) | (None, None) => Wanted::Other,
            (Some(Some(value)), ty) => Wanted::Value(Some(value), ty),
            (None, ty) => Wanted::Value(None, ty),
        };
    }
    match all(test, "value").next() {
        Some(value) => of_value(value).map_or(Wanted::Other, |v| Wanted::Value(Some(v), None)),
        None if get(test, "unknown").is_some() || get(test, "any_unknowns").is_some() => {
            Wanted::Other
        }
        None => Wanted::Value(Some(Value::Bool(true)), None),
    }
}

fn of_type(ty: &Message) -> Option<Type> {
    let (name, field) = ty.first()?;
    Some(match (name.as_str(), field) {
        ("primitive" | "wrapper" | "well_known", Field::Word(word)) => match word.as_str() {
            "BOOL" => Type::Bool,
            "INT64" => Type::Int,
            "UINT64" => Type::Uint,
            "DOUBLE" => Type::Double,
            "STRING" => Type::String,
            "BYTES" => Type::Bytes,
            "TIMESTAMP" => Type::Timestamp,
            "DURATION" => Type::Duration,
            "ANY" => Type::Dyn,
            _ => return None,
        },
        ("null", _) => Type::Null,
        ("dyn", _) => Type::Dyn,
        ("list_type", Field::Message(list)) => {
            Type::list(all(list, "elem_type").next().map_or(Some(Type::Dyn), of_type)?)
        }
        ("map_type", Field::Message(map)) => {
            let part = |name| all(map, name).next().map_or(Some(Type::Dyn), of_type);
            Type::map(part("key_type")?, part("value_type")?)
        }
        ("type", Field::Message(inner)) => Type::Type(of_type(inner).map(Arc::new)),
        ("abstract_type", Field::Message(inner)) if text(inner, "name") == "optional_type" => {
            Type::optional(all(inner, "parameter_types").next().and_then(of_type)?)
        }
        ("message_type", Field::Text(name)) => match name.as_slice() {
            b"google.protobuf.Timestamp" => Type::Timestamp,
            b"google.protobuf.Duration" => Type::Duration,
            _ => return None,
        },
        _ => return None,
    })
}

fn of_value(value: &Message) -> Option<Value<'static>> {
    let (name, field) = value.first()?;
    Some(match (name.as_str(), field) {
        ("null_value", _) => Value::Null,
        ("bool_value", Field::Word(word)) => Value::Bool(word == "true"),
        ("int64_value", Field::Word(word)) => Value::Int(integer(word)? as i64),
        ("uint64_value", Field::Word(word)) => Value::Uint(integer(word)? as u64),
        ("double_value", Field::Word(word)) => Value::Double(double(word)?),
        ("string_value", Field::Text(bytes)) => Value::text(String::from_utf8_lossy(bytes)),
        ("bytes_value", Field::Text(bytes)) => Value::Bytes(bytes.clone().into()),
        ("list_value", Field::Message(list)) => {
            Value::list(all(list, "values").map(of_value).collect::<Option<_>>()?)
        }
        ("map_value", Field::Message(map)) => {
            let entry = |entry| {
                let part = |name| all(entry, name).next().and_then(of_value);
                let key: Value<'static> = part("key")?;
                Some((Key::of(&key)?, (key, part("value")?)))
            };
            let entries = all(map, "entries").map(entry).collect::<Option<_>>()?;
            Value::Map(Map::Made(Arc::new(entries)))
        }
        ("type_value", Field::Text(name)) => {
            let name = String::from_utf8_lossy(name);
            let ty = crate::functions::type_named(&name);
            Value::Type(Arc::new(ty.unwrap_or_else(|| Type::object(&name))))
        }
        ("object_value", Field::Message(object)) => of_object(object)?,
        _ => return None,
    })
}

/// Times and durations, which are messages in protocol buffers.
fn of_object(object: &Message) -> Option<Value<'static>> {
    let (name, field) = object.first()?;
    let Field::Message(message) = field else { return None };
    let number = |key| match text(message, key).as_str() {
        "" => Some(0),
        word => integer(word),
    };
    let nanoseconds = || Some(number("seconds")? * 1_000_000_000 + number("nanos")?);
    match name.strip_prefix("type.googleapis.com/google.protobuf.")? {
        "Duration" => Some(Value::Duration(crate::time::Span(nanoseconds()?.try_into().ok()?))),
        "Timestamp" => {
            let time = crate::time::Time::from_seconds(number("seconds")?.try_into().ok()?)?;
            (number("nanos")? == 0).then_some(Value::Timestamp(time))
        }
        _ => None,
    }
}

fn integer(word: &str) -> Option<i128> {
    let (sign, digits) = word.strip_prefix('-').map_or((1, word), |digits| (-1, digits));
    let number = match digits.strip_prefix("0x") {
        Some(hex) => i128::from_str_radix(hex, 16),
        None => digits.parse(),
    };
    number.ok().map(|number| sign * number)
}

fn double(word: &str) -> Option<f64> {
    match word.trim_start_matches('-').to_ascii_lowercase().as_str() {
        "inf" | "infinity" if word.starts_with('-') => Some(f64::NEG_INFINITY),
        "inf" | "infinity" => Some(f64::INFINITY),
        "nan" => Some(f64::NAN),
        _ => word.parse().ok(),
    }
}

/// The same type and the same value; what is not a number is the same as itself here.
fn same(found: &Value<'_>, wanted: &Value<'_>) -> bool {
    match (found, wanted) {
        (Value::Double(a), Value::Double(b)) => {
            a.to_bits() == b.to_bits() || a == b || a.is_nan() && b.is_nan()
        }
        (Value::List(a), Value::List(b)) => {
            a.len() == b.len()
                && a.iter().zip(b.iter()).all(|pair| matches!(pair, (Ok(a), Ok(b)) if same(&a, &b)))
        }
        (Value::Map(a), Value::Map(b)) => {
            a.len() == b.len()
                && a.entries().into_iter().all(|(key, value)| {
                    let theirs = b.find(&key);
                    matches!((value, theirs), (Ok(a), Ok(Some(b))) if same(&a, &b))
                })
        }
        (Value::Type(a), Value::Type(b)) => a.name() == b.name(),
        _ => found.type_of() == wanted.type_of() && crate::equal::equal(found, wanted) == Ok(true),
    }
}

impl Case {
    pub(super) fn run(&self) -> Result<(), String> {
        if !self.container.is_empty() {
            return Err("a container".to_owned());
        }
        let mut env = Env::new(Arc::new(Objects::default()));
        let mut bindings: Vec<Binding<'_>> = Vec::new();
        let declared = |name: &str| self.variables.iter().any(|(known, _)| known == name);
        let undeclared = self.bindings.iter().filter(|(name, _)| !declared(name));
        let undeclared = undeclared.map(|(name, _)| (name.clone(), Some(Type::Dyn)));
        for (name, ty) in self.variables.iter().cloned().chain(undeclared) {
            env = env.with(&name, ty.ok_or("a variable of a message")?);
            let bound = self.bindings.iter().find(|(known, _)| *known == name);
            bindings.push(match bound {
                Some((_, value)) => Some(Ok(value.clone().ok_or("a value of a message")?)),
                None => None,
            });
        }
        let compiled = match (env.compile(&self.expression), &self.wanted) {
            (Ok(compiled), _) => compiled,
            (Err(_), Wanted::Error) => return Ok(()),
            (Err(issues), _) => {
                let unchecked = if self.checks { "" } else { "unchecked: " };
                return Err(format!("{unchecked}{issues}"));
            }
        };
        let program = match (compiled.program(), &self.wanted) {
            (Ok(program), _) => program,
            (Err(_), Wanted::Error) => return Ok(()),
            (Err(error), _) => return Err(error.to_string()),
        };
        if let Wanted::Value(None, Some(ty)) = &self.wanted {
            return match ty == compiled.output() {
                true => Ok(()),
                false => Err(format!("type {} instead of {ty}", compiled.output())),
            };
        }
        let found = program.run(bindings, PER_CALL_LIMIT).value;
        match (&self.wanted, found) {
            (Wanted::Error, Err(_)) => Ok(()),
            (Wanted::Error, Ok(value)) => Err(format!("{value} instead of an error")),
            (Wanted::Other, _) => Err("an answer that this crate cannot give".to_owned()),
            (Wanted::Value(..), Err(failure)) => Err(failure.to_string()),
            (Wanted::Value(value, ty), Ok(found)) => {
                if let Some(ty) = ty.as_ref().filter(|ty| *ty != compiled.output()) {
                    return Err(format!("type {} instead of {ty}", compiled.output()));
                }
                match value.as_ref().is_none_or(|value| same(&found, value)) {
                    true => Ok(()),
                    false => Err(format!(
                        "{found} instead of {}",
                        value.as_ref().unwrap_or(&Value::Null)
                    )),
                }
            }
        }
    }
}
