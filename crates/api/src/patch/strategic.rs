//! Strategic merge patch: like a merge patch, but lists merge by key where the schema says so.
//!
//! Directives (`community/contributors/devel/sig-api-machinery/strategic-merge-patch.md`):
//! `$patch: replace|delete|merge`, `$retainKeys`, `$deleteFromPrimitiveList/<field>`,
//! `$setElementOrder/<field>`.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::keyed::{Keyed, identity};
use crate::schema::{Field, Schema, Shape};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

/// Merges `patch` into `target`, both of `shape`. The error is a sentence for a 400.
pub fn apply_strategic_patch(
    schema: &Schema,
    shape: &Shape,
    target: &mut Value,
    patch: &Value,
) -> Result<(), String> {
    let Value::Object(patch) = patch else {
        return Err(
            "Invalid value: \"The order in patch list\": a strategic merge patch must be an object"
                .into(),
        );
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return Ok(()) };
    merge_map(schema, shape, target, patch)
}

fn merge_map(
    schema: &Schema,
    shape: &Shape,
    target: &mut Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<(), String> {
    match patch.get(DIRECTIVE).and_then(Value::as_str) {
        Some("replace") => {
            *target = without_directives(patch);
            return Ok(());
        }
        Some("delete") => {
            target.clear();
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => return Err(format!("unknown patch type: {other}")),
    }
    retain_keys(target, patch)?;
    for (key, change) in patch {
        if let Some(field) = key.strip_prefix(DELETE_PRIMITIVES) {
            delete_primitives(target, field, change);
        } else if !key.starts_with('$') {
            merge_key(schema, shape, target, (key, change), patch)?;
        }
    }
    reorder_untouched(schema, shape, target, patch);
    Ok(())
}

fn merge_key(
    schema: &Schema,
    shape: &Shape,
    target: &mut Map<String, Value>,
    (key, change): (&String, &Value),
    patch: &Map<String, Value>,
) -> Result<(), String> {
    if change.is_null() {
        target.remove(key);
        return Ok(());
    }
    let (field, inner) = child(schema, shape, key);
    let slot = target.entry(key.clone()).or_insert(Value::Null);
    match change {
        Value::Object(change) => {
            if !slot.is_object() {
                *slot = Value::Object(Map::new());
            }
            let Value::Object(slot) = slot else { return Ok(()) };
            merge_map(schema, inner, slot, change)
        }
        Value::Array(items) => match field.filter(|f| f.patch.merge) {
            Some(field) => {
                let order = patch.get(&format!("{ELEMENT_ORDER}{key}")).and_then(Value::as_array);
                merge_list(schema, inner, field, slot, items, order)
            }
            None => {
                *slot = Value::Array(items.clone());
                Ok(())
            }
        },
        other => {
            *slot = other.clone();
            Ok(())
        }
    }
}

/// The field of a key, and the shape of what is under it.
fn child<'a>(schema: &'a Schema, shape: &'a Shape, key: &str) -> (Option<&'a Field>, &'a Shape) {
    match shape {
        Shape::Struct(id) => match schema.get(*id).field(key) {
            Some(field) => (Some(field), &field.shape),
            None => (None, &Shape::Any),
        },
        Shape::Map(inner) => (None, inner),
        _ => (None, &Shape::Any),
    }
}

fn without_directives(patch: &Map<String, Value>) -> Map<String, Value> {
    patch.iter().filter(|(k, _)| !k.starts_with('$')).map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn retain_keys(target: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), String> {
    let Some(retained) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let Some(retained) = retained.as_array() else {
        return Err("the value of $retainKeys must be a list".into());
    };
    let retained: HashSet<&str> = retained.iter().filter_map(Value::as_str).collect();
    target.retain(|key, _| retained.contains(key.as_str()));
    Ok(())
}

fn delete_primitives(target: &mut Map<String, Value>, field: &str, deleted: &Value) {
    if let (Some(Value::Array(items)), Some(deleted)) = (target.get_mut(field), deleted.as_array())
    {
        let deleted: HashSet<String> = deleted.iter().map(|item| identity(item, "")).collect();
        items.retain(|item| !deleted.contains(&identity(item, "")));
    }
}

fn merge_list(
    schema: &Schema,
    shape: &Shape,
    field: &Field,
    slot: &mut Value,
    changes: &[Value],
    order: Option<&Vec<Value>>,
) -> Result<(), String> {
    let Shape::List(inner) = shape else {
        *slot = Value::Array(changes.to_vec());
        return Ok(());
    };
    if !slot.is_array() {
        *slot = Value::Array(Vec::new());
    }
    let Value::Array(items) = slot else { return Ok(()) };
    let key = field.patch.merge_key.as_ref();
    let before = places(items, key);
    let is_replacement =
        |c: &Value| c[DIRECTIVE] == "replace" && c.as_object().is_some_and(|o| o.len() == 1);
    let old = std::mem::take(items);
    let mut keyed = match !key.is_empty() && changes.iter().any(is_replacement) {
        true => Keyed::default(),
        false => Keyed::new(old, key),
    };
    for change in changes {
        match key {
            "" => drop(keyed.find_or_add(identity(change, ""), || change.clone())),
            _ => merge_item(schema, inner, key, &mut keyed, change)?,
        }
    }
    *items = keyed.into_items();
    reorder(items, key, changes, &before);
    if let Some(order) = order {
        reorder(items, key, order, &before);
    }
    Ok(())
}

fn merge_item(
    schema: &Schema,
    inner: &Shape,
    key: &str,
    items: &mut Keyed,
    change: &Value,
) -> Result<(), String> {
    let Value::Object(fields) = change else {
        return Err(format!("unable to merge: item without merge key {key}"));
    };
    let directive = fields.get(DIRECTIVE).and_then(Value::as_str);
    if !fields.contains_key(key) {
        return match directive {
            Some("replace") => Ok(()),
            _ => Err(format!("map: {} does not contain declared merge key: {key}", go_map(fields))),
        };
    }
    let identity = identity(change, key);
    if directive == Some("delete") {
        items.remove(&identity);
        return Ok(());
    }
    match items.find_or_add(identity, || Value::Object(Map::new())) {
        Value::Object(item) => merge_map(schema, inner, item, fields),
        _ => Ok(()),
    }
}

/// Go's `%v` of a map, as the message prints it.
fn go_map(map: &Map<String, Value>) -> String {
    let entry = |(k, v): (&String, &Value)| match v {
        Value::String(s) => format!("{k}:{s}"),
        other => format!("{k}:{other}"),
    };
    format!("map[{}]", map.iter().map(entry).collect::<Vec<_>>().join(" "))
}

/// Lists that only have their order set.
fn reorder_untouched(
    schema: &Schema,
    shape: &Shape,
    target: &mut Map<String, Value>,
    patch: &Map<String, Value>,
) {
    for (directive, order) in patch {
        let Some(key) = directive.strip_prefix(ELEMENT_ORDER) else { continue };
        if patch.contains_key(key) {
            continue;
        }
        let merge_key = child(schema, shape, key).0.map_or("", |f| f.patch.merge_key.as_ref());
        if let (Some(Value::Array(items)), Some(order)) = (target.get_mut(key), order.as_array()) {
            let before = places(items, merge_key);
            reorder(items, merge_key, order, &before);
        }
    }
}

/// Where each item stands first, by its identity.
fn places(items: &[Value], key: &str) -> HashMap<String, usize> {
    let mut places = HashMap::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        places.entry(identity(item, key)).or_insert(at);
    }
    places
}

/// Items named in `order` take its order. The others keep theirs among themselves, and come before
/// those of the first that they were before (apimachinery `strategicpatch`, `mergeSortedSlice`).
fn reorder(items: &mut Vec<Value>, key: &str, order: &[Value], before: &HashMap<String, usize>) {
    let order = places(order, key);
    let with_places = items.drain(..).map(|item| {
        let identity = identity(&item, key);
        (order.get(&identity).copied(), before.get(&identity).copied(), item)
    });
    let (mut named, others): (Vec<_>, Vec<_>) =
        with_places.partition(|(named_at, ..)| named_at.is_some());
    named.sort_by_key(|(named_at, ..)| *named_at);
    let mut named = named.into_iter().peekable();
    for (_, at, other) in others {
        let goes_first = |next: Option<usize>| at.zip(next).is_some_and(|(a, b)| a < b);
        while let Some((.., next)) = named.next_if(|(_, next_at, _)| !goes_first(*next_at)) {
            items.push(next);
        }
        items.push(other);
    }
    items.extend(named.map(|(.., item)| item));
}
