//! Values of expressions. JSON data is looked at where it lies: a list or map of it is a reference
//! with its declaration, and becomes values only as far as an expression looks.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use api::quantity::Quantity;
use serde_json::Value as Json;

use crate::declared::{Decl, ListKind};
use crate::error::Error;
use crate::library::{
    authorization::Authorization, cidr::Cidr, named::Format, semver::Semver, url::Url,
};
use crate::time::{Span, Time};
use crate::types::Type;

/// A value, at most as long-lived as the data it looks at.
#[derive(Debug, Clone)]
pub enum Value<'v> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'v>),
    Bytes(Arc<[u8]>),
    Duration(Span),
    Timestamp(Time),
    List(List<'v>),
    Map(Map<'v>),
    Type(Arc<Type>),
    Optional(Option<Arc<Value<'v>>>),
    Quantity(Quantity),
    Ip(IpAddr),
    Cidr(Cidr),
    Url(Arc<Url>),
    Semver(Arc<Semver>),
    Format(&'static Format),
    Struct(Arc<Struct<'v>>),
    Authorization(Arc<Authorization<'v>>),
    /// The variables of a [`crate::Composition`], which are computed when they are asked for.
    Variables,
}

/// A message that an expression made. Its type says what it is for, not which fields it has.
#[derive(Debug, Clone)]
pub struct Struct<'v> {
    pub name: Arc<str>,
    pub fields: BTreeMap<Box<str>, Value<'v>>,
}

/// Text of the data, or made by the expression.
#[derive(Debug, Clone)]
pub enum Text<'v> {
    Borrowed(&'v str),
    Shared(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Shared(text) => text,
        }
    }
}

/// The type of the variables that a policy composes.
pub const VARIABLES_TYPE: &str = "kubernetes.variables";

#[derive(Debug, Clone)]
pub enum List<'v> {
    /// Items of the data, with their declaration.
    Json(&'v [Json], &'v Decl, &'v ListKind),
    Made(Arc<Vec<Value<'v>>>),
}

#[derive(Debug, Clone)]
pub enum Map<'v> {
    /// An object or map of the data, with its own declaration.
    Json(&'v serde_json::Map<String, Json>, &'v Decl),
    /// Entries by key, with the key as it was given.
    Made(Arc<BTreeMap<Key, (Value<'v>, Value<'v>)>>),
    /// The same, but a step to a key that is not there leads to an empty map. `in` and sizes know only
    /// the keys that are there.
    Open(Arc<BTreeMap<Key, (Value<'v>, Value<'v>)>>),
}

/// Entries by key; numbers that are equal are the same key, whatever their types.
pub(crate) type Entries<'v> = BTreeMap<Key, (Value<'v>, Value<'v>)>;

/// What entries are found by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Bool(bool),
    Number(i128),
    String(Box<str>),
}

impl Key {
    /// `None` if no key can be like this value.
    pub(crate) fn of(value: &Value<'_>) -> Option<Key> {
        Some(match value {
            Value::Bool(b) => Key::Bool(*b),
            Value::Int(n) => Key::Number((*n).into()),
            Value::Uint(n) => Key::Number((*n).into()),
            Value::Double(n) if n.fract() == 0.0 && n.abs() < 2e19 => Key::Number(*n as i128),
            Value::String(text) => Key::String((**text).into()),
            _ => return None,
        })
    }
}

impl<'v> Value<'v> {
    /// Kubernetes' own types, which are compared as one thing in one step.
    pub(crate) fn is_opaque(&self) -> bool {
        use Value::{Authorization, Cidr, Format, Ip, Quantity, Semver, Url};
        matches!(
            self,
            Quantity(_) | Ip(_) | Cidr(_) | Url(_) | Semver(_) | Format(_) | Authorization(_)
        )
    }

    pub fn text(text: impl Into<Arc<str>>) -> Value<'v> {
        Value::String(Text::Shared(text.into()))
    }

    /// A map of texts to values that a caller made.
    pub fn map(of: impl IntoIterator<Item = (Arc<str>, Value<'v>)>) -> Value<'v> {
        Value::Map(Map::Made(entries(of)))
    }

    /// A map of texts to maps, in which a step to a key that is not there leads to an empty map.
    pub fn open_map(of: impl IntoIterator<Item = (Arc<str>, Value<'v>)>) -> Value<'v> {
        Value::Map(Map::Open(entries(of)))
    }

    /// A semantic version; the error is upstream's.
    pub fn semver(text: &str) -> Result<Value<'v>, Error> {
        crate::library::semver::parse(text)
            .map(|version| Value::Semver(Arc::new(version)))
            .map_err(Error::new)
    }

    pub(crate) fn list(items: Vec<Value<'v>>) -> Value<'v> {
        Value::List(List::Made(Arc::new(items)))
    }

    pub(crate) fn texts<T: Into<Arc<str>>>(items: impl IntoIterator<Item = T>) -> Value<'v> {
        Value::list(items.into_iter().map(Value::text).collect())
    }

    pub(crate) fn some(value: Value<'v>) -> Value<'v> {
        Value::Optional(Some(Arc::new(value)))
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The run-time type, without what lists and maps hold.
    pub fn type_of(&self) -> Type {
        match self {
            Value::Null => Type::Null,
            Value::Bool(_) => Type::Bool,
            Value::Int(_) => Type::Int,
            Value::Uint(_) => Type::Uint,
            Value::Double(_) => Type::Double,
            Value::String(_) => Type::String,
            Value::Bytes(_) => Type::Bytes,
            Value::Duration(_) => Type::Duration,
            Value::Timestamp(_) => Type::Timestamp,
            Value::List(_) => Type::list(Type::Dyn),
            Value::Map(_) => Type::map(Type::Dyn, Type::Dyn),
            Value::Type(_) => Type::Type(None),
            Value::Optional(_) => Type::optional(Type::Dyn),
            Value::Quantity(_) => Type::object("kubernetes.Quantity"),
            Value::Ip(_) => Type::Opaque("net.IP".into(), [].into()),
            Value::Cidr(_) => Type::Opaque("net.CIDR".into(), [].into()),
            Value::Url(_) => Type::object("kubernetes.URL"),
            Value::Semver(_) => Type::object("kubernetes.Semver"),
            Value::Format(_) => Type::object("kubernetes.NamedFormat"),
            Value::Struct(made) => Type::Object(made.name.clone()),
            Value::Authorization(value) => Type::object(value.type_name()),
            Value::Variables => Type::object(VARIABLES_TYPE),
        }
    }

    /// The size as costs count it: characters, bytes, items, entries, or 1.
    pub(crate) fn cost_size(&self) -> u64 {
        match self {
            Value::String(text) => text.chars().count() as u64,
            Value::Bytes(bytes) => bytes.len() as u64,
            Value::List(list) => list.len() as u64,
            Value::Map(map) => map.len() as u64,
            Value::Ip(IpAddr::V4(_)) => 4,
            Value::Ip(IpAddr::V6(_)) => 16,
            Value::Cidr(cidr) => u64::from(cidr.bits.div_ceil(8)),
            _ => 1,
        }
    }
}

impl<'v> List<'v> {
    /// Its items, when all are texts.
    pub fn texts(&self) -> Option<Vec<String>> {
        self.iter().map(|item| item.ok()?.as_str().map(str::to_owned)).collect()
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            List::Json(items, ..) => items.len(),
            List::Made(items) => items.len(),
        }
    }

    /// An item that is there.
    pub(crate) fn get(&self, at: usize) -> Result<Value<'v>, Error> {
        match self {
            List::Json(items, item, _) => crate::json::read(&items[at], item),
            List::Made(items) => Ok(items[at].clone()),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Result<Value<'v>, Error>> + '_ {
        (0..self.len()).map(|at| self.get(at))
    }

    /// All items, or the first that is no sound data.
    pub(crate) fn to_vec(&self) -> Result<Vec<Value<'v>>, Error> {
        self.iter().collect()
    }
}

impl<'v> Map<'v> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Map::Json(map, _) => map.len(),
            Map::Made(entries) | Map::Open(entries) => entries.len(),
        }
    }

    /// The value of a key that no entry has.
    pub(crate) fn missing(&self) -> Option<Value<'v>> {
        matches!(self, Map::Open(_)).then(|| Value::Map(Map::Made(Arc::default())))
    }
}

fn entries<'v>(
    entries: impl IntoIterator<Item = (Arc<str>, Value<'v>)>,
) -> Arc<BTreeMap<Key, (Value<'v>, Value<'v>)>> {
    let entry = |(key, value): (Arc<str>, Value<'v>)| {
        (Key::String((&*key).into()), (Value::text(key), value))
    };
    Arc::new(entries.into_iter().map(entry).collect())
}

/// A value as faults and tests print it (cel-go `types.Format`).
impl std::fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(b) => write!(f, "{b}"),
            Value::Int(n) => write!(f, "{n}"),
            Value::Uint(n) => write!(f, "{n}u"),
            Value::Double(n) if n.is_nan() => f.write_str("double(\"NaN\")"),
            Value::Double(f64::INFINITY) => f.write_str("double(\"Infinity\")"),
            Value::Double(f64::NEG_INFINITY) => f.write_str("double(\"-Infinity\")"),
            Value::Double(n) if n.fract() == 0.0 => write!(f, "{n:.1}"),
            Value::Double(n) => write!(f, "{n}"),
            Value::String(text) => write!(f, "{:?}", &**text),
            Value::Bytes(bytes) => {
                f.write_str("b\"")?;
                bytes.iter().try_for_each(|b| write!(f, "\\{b:03o}"))?;
                f.write_char('"')
            }
            Value::Duration(span) => write!(f, "duration(\"{span}\")"),
            Value::Timestamp(time) => write!(f, "timestamp(\"{time}\")"),
            Value::List(list) => {
                f.write_char('[')?;
                for at in 0..list.len() {
                    f.write_str(if at > 0 { ", " } else { "" })?;
                    list.get(at).map_or(Ok(()), |item| write!(f, "{item}"))?;
                }
                f.write_char(']')
            }
            Value::Map(map) => fmt_map(map, f),
            Value::Type(ty) => f.write_str(ty.name()),
            Value::Optional(None) => f.write_str("optional.none()"),
            Value::Optional(Some(inner)) => write!(f, "optional.of({inner})"),
            Value::Quantity(quantity) => write!(f, "{quantity}"),
            Value::Ip(ip) => write!(f, "{ip}"),
            Value::Cidr(cidr) => write!(f, "{cidr}"),
            Value::Url(url) => f.write_str(&url.text),
            Value::Semver(version) => write!(f, "{version}"),
            Value::Format(format) => f.write_str(format.name),
            Value::Struct(made) => fmt_struct(made, f),
            Value::Authorization(value) => f.write_str(value.type_name()),
            Value::Variables => f.write_str(VARIABLES_TYPE),
        }
    }
}

fn fmt_struct(made: &Struct<'_>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    write!(f, "{}{{", made.name)?;
    for (count, (name, value)) in made.fields.iter().enumerate() {
        write!(f, "{}{name}: {value}", if count > 0 { ", " } else { "" })?;
    }
    f.write_char('}')
}

fn fmt_map(map: &Map<'_>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    f.write_char('{')?;
    for (count, (key, value)) in map.entries().into_iter().enumerate() {
        f.write_str(if count > 0 { ", " } else { "" })?;
        write!(f, "{key}: ")?;
        value.map_or(Ok(()), |value| write!(f, "{value}"))?;
    }
    f.write_char('}')
}
