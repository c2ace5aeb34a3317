//! One step of a path to a field, its order, its `fieldsV1` form and the form errors print.

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Map, Value};

/// A step: a field or map key, an item of a list by its keys or its value, or by its index.
///
/// The order of the variants is the order in which upstream writes them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    Field(Box<str>),
    /// Sorted by name.
    Key(Box<[(Box<str>, Scalar)]>),
    Value(Scalar),
    Index(i64),
}

/// Steps from the object's root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Path(pub Vec<Element>);

/// A JSON value with a total order: numbers, strings, booleans, lists, objects, null.
#[derive(Debug, Clone)]
pub struct Scalar(pub Value);

impl Element {
    pub fn field(name: &str) -> Element {
        Element::Field(name.into())
    }

    /// Reads `f:name`, `k:{…}`, `v:…` or `i:n`; forms of later versions are `None`, like faults.
    pub fn parse(text: &str) -> Option<Element> {
        let (form, rest) = text.split_once(':')?;
        match form {
            "f" => Some(Element::field(rest)),
            "v" => Some(Element::Value(Scalar(serde_json::from_str(rest).ok()?))),
            "i" => Some(Element::Index(rest.parse().ok()?)),
            "k" => {
                let keys: Map<String, Value> = serde_json::from_str(rest).ok()?;
                // serde_json's maps are sorted by key, as this needs it.
                let keys = keys.into_iter().map(|(name, value)| (name.into(), Scalar(value)));
                Some(Element::Key(keys.collect()))
            }
            _ => None,
        }
    }

    /// The key of `fieldsV1`.
    pub fn encode(&self) -> String {
        match self {
            Element::Field(name) => ["f:", name].concat(),
            Element::Value(value) => format!("v:{}", go_json(&value.0)),
            Element::Index(at) => format!("i:{at}"),
            Element::Key(keys) => {
                let mut out = String::from("k:{");
                for (at, (name, value)) in keys.iter().enumerate() {
                    // Names are identifiers of the schema: nothing in them is escaped.
                    out.push_str(if at == 0 { "\"" } else { ",\"" });
                    out.push_str(name);
                    out.push_str("\":");
                    out.push_str(&go_json(&value.0));
                }
                out.push('}');
                out
            }
        }
    }
}

/// JSON as Go's encoder writes it: with the characters escaped that HTML would notice.
pub fn go_json(value: &Value) -> String {
    let plain = value.to_string();
    if !plain.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return plain;
    }
    let escape = |c: char| match c {
        '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => format!("\\u{:04x}", u32::from(c)),
        other => other.to_string(),
    };
    plain.chars().map(escape).collect()
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::Field(name) => write!(f, ".{name}"),
            Element::Value(value) => write!(f, "[={}]", value.0),
            Element::Index(at) => write!(f, "[{at}]"),
            Element::Key(keys) => {
                let pair = |(name, value): &(Box<str>, Scalar)| format!("{name}={}", value.0);
                write!(f, "[{}]", keys.iter().map(pair).collect::<Vec<_>>().join(","))
            }
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|element| element.fmt(f))
    }
}

impl PartialEq for Scalar {
    fn eq(&self, other: &Scalar) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scalar {}

impl PartialOrd for Scalar {
    fn partial_cmp(&self, other: &Scalar) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scalar {
    fn cmp(&self, other: &Scalar) -> Ordering {
        compare_values(&self.0, &other.0)
    }
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}

pub(super) fn compare_values(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => a.as_f64().unwrap_or(0.0).total_cmp(&b.as_f64().unwrap_or(0.0)),
        },
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => {
            let items = a.iter().zip(b).map(|(a, b)| compare_values(a, b));
            items.fold(Ordering::Equal, Ordering::then).then(a.len().cmp(&b.len()))
        }
        (Value::Object(a), Value::Object(b)) => {
            let pair = |(a, b): ((&String, &Value), (&String, &Value))| {
                a.0.cmp(b.0).then_with(|| compare_values(a.1, b.1))
            };
            let items = a.iter().zip(b).map(pair);
            items.fold(Ordering::Equal, Ordering::then).then(a.len().cmp(&b.len()))
        }
        _ => rank(a).cmp(&rank(b)),
    }
}
