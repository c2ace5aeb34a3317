//! What one state of an object has that another has not.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::element::{Element, compare_values};
use super::filter::Filter;
use super::node::{Kind, Node};
use super::set::{Branch, FieldSet};
use crate::schema::Schema;

/// The fields in which two states differ. No field is in two of the sets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    pub removed: FieldSet,
    pub modified: FieldSet,
    pub added: FieldSet,
}

impl Differences {
    /// From `old` to `new`; fails when a list's items cannot be told apart.
    pub fn between(
        schema: &Schema,
        node: Node<'_>,
        old: &Value,
        new: &Value,
    ) -> Result<Differences, String> {
        let found = compare(schema, node, Some(old), Some(new))?;
        Ok(Differences {
            removed: found.removed.below,
            modified: found.modified.below,
            added: found.added.below,
        })
    }

    #[must_use]
    pub fn filtered(self, filter: &Filter) -> Differences {
        Differences {
            removed: filter.apply(self.removed),
            modified: filter.apply(self.modified),
            added: filter.apply(self.added),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }

    /// What the new state has that is the old one's no more.
    pub fn into_changed(self) -> FieldSet {
        self.modified.union(self.added)
    }
}

type Side<'v> = Option<&'v Value>;

/// What was found at one element.
#[derive(Default)]
struct Found {
    removed: Branch,
    modified: Branch,
    added: Branch,
}

impl Found {
    fn below(found: Differences) -> Found {
        let branch = |below| Branch { member: false, below };
        Found {
            removed: branch(found.removed),
            modified: branch(found.modified),
            added: branch(found.added),
        }
    }
}

impl Differences {
    fn put(&mut self, element: &Element, found: Found) {
        self.removed.put(element, found.removed);
        self.modified.put(element, found.modified);
        self.added.put(element, found.added);
    }
}

fn compare(schema: &Schema, node: Node<'_>, old: Side<'_>, new: Side<'_>) -> Result<Found, String> {
    if old == new {
        return Ok(Found::default());
    }
    let mut is_leaf = false;
    let mut found = match node.kind(schema, [old, new]) {
        Kind::Struct(_) | Kind::Map if !(is_bare(old) && is_bare(new)) => {
            Found::below(fields(schema, node, old, new)?)
        }
        Kind::List(keys) if !(is_bare(old) && is_bare(new)) => {
            Found::below(items(schema, node, keys, old, new)?)
        }
        _ => {
            is_leaf = true;
            Found::default()
        }
    };
    match (old, new) {
        (None, _) => found.added.member = true,
        (_, None) => found.removed.member = true,
        (Some(old), Some(new)) => found.modified.member = is_leaf && !same(old, new),
    }
    Ok(found)
}

fn fields(
    schema: &Schema,
    node: Node<'_>,
    old: Side<'_>,
    new: Side<'_>,
) -> Result<Differences, String> {
    let (old, new) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
    let mut found = Differences::default();
    let is_old = |name: &String| old.is_some_and(|map| map.contains_key(name));
    let only_new = new.into_iter().flat_map(Map::keys).filter(|name| !is_old(name));
    for name in old.into_iter().flat_map(Map::keys).chain(only_new) {
        let (old, new) = (old.and_then(|m| m.get(name)), new.and_then(|m| m.get(name)));
        if old != new {
            let below = compare(schema, node.field(schema, name), old, new)?;
            found.put(&Element::field(name), below);
        }
    }
    Ok(found)
}

fn items(
    schema: &Schema,
    node: Node<'_>,
    keys: &[Box<str>],
    old: Side<'_>,
    new: Side<'_>,
) -> Result<Differences, String> {
    let old = grouped(schema, &node, keys, old)?;
    let new = grouped(schema, &node, keys, new)?;
    let mut found = Differences::default();
    let only_new = new.keys().filter(|element| !old.contains_key(element));
    for element in old.keys().chain(only_new) {
        let before = old.get(element).map_or(&[][..], Vec::as_slice);
        let after = new.get(element).map_or(&[][..], Vec::as_slice);
        found.put(element, same_items(schema, node.item(), before, after)?);
    }
    Ok(found)
}

/// Compares what stands under one key: usually one item on each side, but updates may store
/// duplicates, which are owned as one value.
fn same_items(
    schema: &Schema,
    node: Node<'_>,
    old: &[&Value],
    new: &[&Value],
) -> Result<Found, String> {
    let mut found = Found::default();
    match (old, new) {
        ([] | [_], [] | [_]) => return compare(schema, node, one(old), one(new)),
        ([] | [_], _) => {
            if !old.is_empty() {
                found = compare(schema, node, one(old), None)?;
            }
            found.added.member = true;
        }
        (_, [] | [_]) => {
            if !new.is_empty() {
                found = compare(schema, node, None, one(new))?;
            }
            found.removed.member = true;
        }
        _ => found.modified.member = old != new,
    }
    Ok(found)
}

fn one<'v>(items: &[&'v Value]) -> Side<'v> {
    items.first().copied()
}

type Grouped<'v> = BTreeMap<Element, Vec<&'v Value>>;

/// A list's items by what tells them apart.
fn grouped<'v>(
    schema: &Schema,
    node: &Node<'_>,
    keys: &[Box<str>],
    list: Side<'v>,
) -> Result<Grouped<'v>, String> {
    let mut groups = Grouped::new();
    for item in list.and_then(Value::as_array).into_iter().flatten() {
        groups.entry(node.element(schema, keys, item)?).or_default().push(item);
    }
    Ok(groups)
}

/// Absent, null or empty: then the two sides are compared as leaves, to tell these apart.
fn is_bare(side: Side<'_>) -> bool {
    match side {
        None | Some(Value::Null) => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(_) => false,
    }
}

/// Equal, with 1 and 1.0 the same number.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    a == b || compare_values(a, b).is_eq()
}
