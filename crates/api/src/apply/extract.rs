//! The fields an object has, and whether an applied object fits its schema at all.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::element::Element;
use super::node::{Kind, Node};
use super::set::FieldSet;
use crate::schema::{Schema, Shape};

/// All fields of an applied object that passed [`check`].
pub fn fields(schema: &Schema, node: Node<'_>, value: &Value) -> Result<FieldSet, String> {
    let mut set = FieldSet::new();
    collect(schema, node, value, &mut Vec::new(), &mut set)?;
    Ok(set)
}

fn collect(
    schema: &Schema,
    node: Node<'_>,
    value: &Value,
    path: &mut Vec<Element>,
    set: &mut FieldSet,
) -> Result<(), String> {
    match (node.kind(schema, [Some(value), None]), value) {
        (Kind::Struct(_) | Kind::Map, Value::Object(map)) => {
            for (name, value) in map {
                path.push(Element::field(name));
                collect(schema, node.field(schema, name), value, path, set)?;
                let bare = value.is_null() || value.as_object().is_some_and(|m| m.is_empty());
                if bare || !node.declares(schema, name) {
                    set.insert(path);
                }
                path.pop();
            }
        }
        (Kind::List(keys), Value::Array(items)) => {
            let mut times: BTreeMap<Element, usize> = BTreeMap::new();
            for item in items {
                *times.entry(node.element(schema, keys, item)?).or_default() += 1;
            }
            for item in items {
                let element = node.element(schema, keys, item)?;
                let duplicated = times.get(&element).is_some_and(|n| *n > 1);
                path.push(element);
                if !duplicated {
                    collect(schema, node.item(), item, path, set)?;
                }
                set.insert(path);
                path.pop();
            }
        }
        (Kind::Scalar | Kind::Atomic, _) => set.insert(path),
        _ => {}
    }
    Ok(())
}

/// The faults of an applied object, worded as clients see them; empty when there are none.
pub fn check(schema: &Schema, node: Node<'_>, value: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    Check { schema, faults: &mut faults }.value(node, value, &mut String::new());
    faults
}

struct Check<'a> {
    schema: &'a Schema,
    faults: &'a mut Vec<String>,
}

impl<'a> Check<'a> {
    fn value(&mut self, node: Node<'a>, value: &Value, path: &mut String) {
        match (node.shape(), value) {
            (_, Value::Null) | (Shape::Any | Shape::SchemaOr(_), _) => {}
            (Shape::Struct(_) | Shape::Map(_), Value::Object(map)) => {
                for (name, value) in map {
                    if matches!(node.shape(), Shape::Struct(_)) && !node.declares(self.schema, name)
                    {
                        self.fault(&format!("{path}.{name}"), "field not declared in schema");
                        return;
                    }
                    let end = path.len();
                    path.push_str(&format!(".{name}"));
                    self.value(node.field(self.schema, name), value, path);
                    path.truncate(end);
                }
            }
            (Shape::Struct(_) | Shape::Map(_), other) => {
                self.fault(path, &format!("expected map, got {}", go_short(other)));
            }
            (Shape::List(_), Value::Array(items)) => self.items(node, items, path),
            (Shape::List(_), other) => {
                self.fault(path, &format!("expected list, got {}", go_short(other)));
            }
            (shape, value) => {
                if let Some(fault) = scalar_fault(shape, value) {
                    self.fault(path, &fault);
                }
            }
        }
    }

    fn items(&mut self, node: Node<'a>, items: &[Value], path: &mut String) {
        let keys = match node.kind(self.schema, [None, None]) {
            Kind::List(keys) => Some(keys),
            _ => None,
        };
        let mut seen = BTreeSet::new();
        for (at, item) in items.iter().enumerate() {
            let index = Element::Index(i64::try_from(at).unwrap_or(i64::MAX));
            let element = keys.map_or(Ok(index), |keys| node.element(self.schema, keys, item));
            let element = match element {
                Ok(element) => element,
                Err(fault) => return self.fault(path, &format!("element {at}: {fault}")),
            };
            if seen.contains(&element) {
                self.fault(path, &format!("duplicate entries for key {element}"));
            }
            let end = path.len();
            path.push_str(&element.to_string());
            self.value(node.item(), item, path);
            path.truncate(end);
            seen.insert(element);
        }
    }

    fn fault(&mut self, path: &str, text: &str) {
        self.faults.push(if path.is_empty() { text.into() } else { format!("{path}: {text}") });
    }
}

fn scalar_fault(shape: &Shape, value: &Value) -> Option<String> {
    match shape {
        Shape::Int32 | Shape::Int64 | Shape::Double if !value.is_number() => {
            Some(format!("expected numeric (int or float), got {}", go_type(value)))
        }
        Shape::String | Shape::Bytes if !value.is_string() => {
            let value = go_value(value);
            Some(format!("expected string, got &value.valueUnstructured{{Value:{value}}}"))
        }
        Shape::Bool if !value.is_boolean() => {
            Some(format!("expected boolean, got {}", go_short(value)))
        }
        _ if value.is_object() || value.is_array() => {
            Some(format!("expected any scalar, got {}", go_short(value)))
        }
        _ => None,
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_i64() => "int64",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// Go's `%#v`.
fn go_value(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_value).collect();
            format!("{}{{{}}}", go_type(value), items.join(", "))
        }
        Value::Object(map) => {
            let pairs: Vec<String> =
                map.iter().map(|(k, v)| format!("{k:?}:{}", go_value(v))).collect();
            format!("{}{{{}}}", go_type(value), pairs.join(", "))
        }
        scalar => scalar.to_string(),
    }
}

/// Go's `%v` of a pointer to a wrapped value.
fn go_short(value: &Value) -> String {
    fn plain(value: &Value) -> String {
        match value {
            Value::Null => "<nil>".into(),
            Value::String(s) => s.clone(),
            Value::Array(items) => {
                format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(" "))
            }
            Value::Object(map) => {
                let pairs = map.iter().map(|(k, v)| format!("{k}:{}", plain(v)));
                format!("map[{}]", pairs.collect::<Vec<_>>().join(" "))
            }
            scalar => scalar.to_string(),
        }
    }
    format!("&{{{}}}", plain(value))
}
