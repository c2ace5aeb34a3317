//! Types of CEL, as the checker reasons with them and as faults print them.

use std::fmt;
use std::sync::Arc;

/// A type. Objects are told apart by name; what fields they have, the [`crate::Env`] knows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Type {
    /// Known when the expression runs.
    Dyn,
    /// Of an expression with a fault, so that one fault is told once.
    Error,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp,
    List(Arc<Type>),
    Map(Arc<Type>, Arc<Type>),
    /// Fields, or for Kubernetes' own types functions only.
    Object(Arc<str>),
    /// A type with parameters that only functions look into: `optional_type(T)`, `net.IP`.
    Opaque(Arc<str>, Arc<[Type]>),
    /// The type of a type's name.
    Type(Option<Arc<Type>>),
    /// A type variable.
    Var(u32),
}

const OPTIONAL: &str = "optional_type";

impl Type {
    pub fn list(item: Type) -> Type {
        Type::List(Arc::new(item))
    }

    pub fn map(key: Type, value: Type) -> Type {
        Type::Map(Arc::new(key), Arc::new(value))
    }

    pub fn object(name: &str) -> Type {
        Type::Object(name.into())
    }

    pub fn optional(inner: Type) -> Type {
        Type::Opaque(OPTIONAL.into(), [inner].into())
    }

    /// What an optional holds.
    pub(crate) fn unwrap_optional(&self) -> Option<&Type> {
        match self {
            Type::Opaque(name, parameters) if &**name == OPTIONAL => parameters.first(),
            _ => None,
        }
    }

    pub(crate) fn is_dyn_or_error(&self) -> bool {
        matches!(self, Type::Dyn | Type::Error)
    }

    /// Types that make up this one.
    pub(crate) fn parameters(&self) -> Vec<&Type> {
        match self {
            Type::List(item) => vec![item],
            Type::Map(key, value) => vec![key, value],
            Type::Opaque(_, parameters) => parameters.iter().collect(),
            Type::Type(inner) => inner.iter().map(|t| &**t).collect(),
            _ => Vec::new(),
        }
    }

    /// The same type made of others.
    pub(crate) fn rebuilt(&self, each: &mut dyn FnMut(&Type) -> Type) -> Type {
        match self {
            Type::List(item) => Type::list(each(item)),
            Type::Map(key, value) => Type::map(each(key), each(value)),
            Type::Opaque(name, parameters) => {
                Type::Opaque(name.clone(), parameters.iter().map(each).collect())
            }
            Type::Type(Some(inner)) => Type::Type(Some(Arc::new(each(inner)))),
            other => other.clone(),
        }
    }

    /// The whole type, as texts about the type that an expression must have print it.
    pub fn declared(&self) -> String {
        let parameters: Vec<String> = self.parameters().into_iter().map(Type::declared).collect();
        match parameters.is_empty() {
            true => self.name().to_owned(),
            false => format!("{}({})", self.name(), parameters.join(", ")),
        }
    }

    /// The name without parameters, as expressions and run-time faults spell it.
    pub fn name(&self) -> &str {
        match self {
            Type::Dyn => "dyn",
            Type::Error => "!error!",
            Type::Null => "null_type",
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Uint => "uint",
            Type::Double => "double",
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::Duration => "google.protobuf.Duration",
            Type::Timestamp => "google.protobuf.Timestamp",
            Type::List(_) => "list",
            Type::Map(..) => "map",
            Type::Object(name) | Type::Opaque(name, _) => name,
            Type::Type(_) => "type",
            Type::Var(_) => "_var",
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Null => f.write_str("null"),
            Type::Duration => f.write_str("duration"),
            Type::Timestamp => f.write_str("timestamp"),
            Type::Var(number) => write!(f, "_var{number}"),
            _ => {
                f.write_str(self.name())?;
                let parameters = self.parameters();
                if parameters.is_empty() {
                    return Ok(());
                }
                let texts: Vec<String> = parameters.iter().map(ToString::to_string).collect();
                write!(f, "({})", texts.join(", "))
            }
        }
    }
}
