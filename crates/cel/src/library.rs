//! What functions do. Arguments come checked as far as their types were known; what does not fit at
//! run time is "no such overload", as in upstream.

pub(crate) mod authorization;
pub(crate) mod cidr;
mod convert;
pub(crate) mod formatting;
mod ip;
mod lists;
pub(crate) mod named;
mod operators;
mod optional;
mod quantity;
mod regular;
pub(crate) mod semver;
mod strings;
mod times;
pub(crate) mod url;

use crate::error::Error;
use crate::types::Type;
use crate::value::Value;

pub(crate) use convert::number as number_text;
pub(crate) use lists::typed_sum as sum;
pub(crate) use operators::{add, map_insert};
pub(crate) use regular::{regex, search};

/// A function's answer; `None` if it has no overload for the arguments.
pub(crate) type Answer<'v> = Option<Result<Value<'v>, Error>>;
pub(crate) type Function = for<'a, 'v> fn(&'a [Value<'v>]) -> Answer<'v>;

/// The function of a name, all its overloads in one.
pub(crate) fn function(name: &str) -> Option<Function> {
    operators::find(name)
        .or_else(|| convert::find(name))
        .or_else(|| strings::find(name))
        .or_else(|| lists::find(name))
        .or_else(|| optional::find(name))
        .or_else(|| times::find(name))
        .or_else(|| regular::find(name))
        .or_else(|| quantity::find(name))
        .or_else(|| ip::find(name))
        .or_else(|| cidr::find(name))
        .or_else(|| url::find(name))
        .or_else(|| semver::find(name))
        .or_else(|| named::find(name))
        .or_else(|| authorization::find(name))
}

/// Names that several libraries have: each is asked in turn.
fn either<'v>(functions: &[Function], args: &[Value<'v>]) -> Answer<'v> {
    functions.iter().find_map(|function| function(args))
}

pub(crate) fn invoke<'v>(
    function: Function,
    name: &str,
    args: &[Value<'v>],
) -> Result<Value<'v>, Error> {
    function(args).unwrap_or_else(|| Err(no_overload(name, args)))
}

/// Operators say less than functions.
fn no_overload(name: &str, args: &[Value<'_>]) -> Error {
    let receives = |ty: Type| matches!(ty, Type::String | Type::Timestamp | Type::Duration);
    match name {
        "contains" | "startsWith" | "endsWith" | "!_" | "@in" | "matches" => Error::no_overload(),
        "size" | "_[_]" => Error::new(format!("no such overload: {name}")),
        _ if name.starts_with('_') || name == "-_" => match args.first().map(Value::type_of) {
            Some(ty) if receives(ty.clone()) || operators::has(name, &ty) => Error::no_overload(),
            _ => Error::new(format!("no such overload: {name}")),
        },
        _ => {
            let types: Vec<String> =
                args.iter().map(|arg| arg.type_of().name().to_owned()).collect();
            Error::new(format!("no such overload: {name}({})", types.join(", ")))
        }
    }
}
