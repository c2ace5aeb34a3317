//! Taking fields out of an object.

use serde_json::{Map, Value};

use super::element::Element;
use super::node::{Kind, Node};
use super::set::FieldSet;
use crate::schema::Schema;

/// `value` without the members of `fields`; containers that lose their last item stay, empty.
///
/// Scalars and atomic values are removed by whoever holds them, hence `None` for atomic ones.
pub fn remove(schema: &Schema, node: Node<'_>, value: &Value, fields: &FieldSet) -> Option<Value> {
    match (node.kind(schema, [Some(value), None]), value) {
        (Kind::Struct(_) | Kind::Map, Value::Object(map)) => from_map(schema, node, map, fields),
        (Kind::List(keys), Value::Array(items)) => from_list(schema, node, keys, items, fields),
        (Kind::Scalar, value) => Some(value.clone()),
        _ => None,
    }
}

fn from_map(
    schema: &Schema,
    node: Node<'_>,
    map: &Map<String, Value>,
    fields: &FieldSet,
) -> Option<Value> {
    let mut kept = Map::new();
    let mut descended = false;
    for (name, value) in map {
        let element = Element::field(name);
        if fields.has(&element) {
            continue;
        }
        let below = fields.below(&element);
        descended |= below.is_some();
        let value = below.map_or_else(
            || value.clone(),
            |below| remove_below(schema, node.field(schema, name), value, below),
        );
        kept.insert(name.clone(), value);
    }
    (!kept.is_empty() || descended).then_some(Value::Object(kept))
}

fn from_list(
    schema: &Schema,
    node: Node<'_>,
    keys: &[Box<str>],
    items: &[Value],
    fields: &FieldSet,
) -> Option<Value> {
    let mut kept = Vec::new();
    let mut descended = false;
    for item in items {
        // Lists were checked when they were compared; what has no key cannot be meant.
        let element = node.element(schema, keys, item).ok();
        if element.as_ref().is_some_and(|e| fields.has(e)) {
            continue;
        }
        let below = element.and_then(|e| fields.below(&e));
        descended |= below.is_some();
        kept.push(
            below.map_or_else(
                || item.clone(),
                |below| remove_below(schema, node.item(), item, below),
            ),
        );
    }
    (!kept.is_empty() || descended).then_some(Value::Array(kept))
}

fn remove_below(schema: &Schema, node: Node<'_>, value: &Value, fields: &FieldSet) -> Value {
    remove(schema, node, value, fields).unwrap_or_else(|| match value {
        Value::Object(_) => Value::Object(Map::new()),
        Value::Array(_) => Value::Array(Vec::new()),
        _ => Value::Null,
    })
}
