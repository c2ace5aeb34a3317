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
    match (old, new) {
        (Some(old), Some(new)) if old == new => Ok(Found::default()),
        (Some(old), Some(new)) => both(schema, node, old, new),
        (old, new) => {
            let of =
                |side: Side<'_>| side.map_or(Ok(Branch::default()), |v| whole(schema, node, v));
            Ok(Found { removed: of(old)?, added: of(new)?, ..Found::default() })
        }
    }
}

fn both(schema: &Schema, node: Node<'_>, old: &Value, new: &Value) -> Result<Found, String> {
    let is_bare = is_bare(old) && is_bare(new);
    match node.kind(schema, [Some(old), Some(new)]) {
        Kind::Struct(_) | Kind::Map if !is_bare => {
            Ok(Found::below(fields(schema, node, old, new)?))
        }
        Kind::List(keys) if !is_bare => Ok(Found::below(items(schema, node, keys, old, new)?)),
        _ => {
            let modified = Branch { member: !same(old, new), below: FieldSet::new() };
            Ok(Found { modified, ..Found::default() })
        }
    }
}

/// All of a value that only one side has.
fn whole(schema: &Schema, node: Node<'_>, value: &Value) -> Result<Branch, String> {
    let below = match (node.kind(schema, [Some(value), None]), value) {
        (Kind::Struct(_) | Kind::Map, Value::Object(map)) => {
            let entry = |(name, value): (&String, &Value)| {
                Ok((Element::field(name), whole(schema, node.field(schema, name), value)?))
            };
            FieldSet::of_branches(map.iter().map(entry).collect::<Result<_, String>>()?)
        }
        (Kind::List(keys), Value::Array(items)) => whole_items(schema, node, keys, items)?,
        _ => FieldSet::new(),
    };
    Ok(Branch { member: true, below })
}

fn whole_items(
    schema: &Schema,
    node: Node<'_>,
    keys: &[Box<str>],
    items: &[Value],
) -> Result<FieldSet, String> {
    let named = |item| Ok((node.element(schema, keys, item)?, item));
    let mut named = items.iter().map(named).collect::<Result<Vec<(Element, &Value)>, String>>()?;
    named.sort_by(|a, b| a.0.cmp(&b.0));
    let mut branches: Vec<(Element, Branch)> = Vec::with_capacity(named.len());
    for (element, item) in named {
        match branches.last_mut().filter(|(last, _)| *last == element) {
            // Duplicates are owned as one value.
            Some((_, twice)) => twice.below = FieldSet::new(),
            None => branches.push((element, whole(schema, node.item(), item)?)),
        }
    }
    Ok(FieldSet::of_branches(branches))
}

fn fields(
    schema: &Schema,
    node: Node<'_>,
    old: &Value,
    new: &Value,
) -> Result<Differences, String> {
    let (old, new) = (old.as_object(), new.as_object());
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
    old: &Value,
    new: &Value,
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
    list: &'v Value,
) -> Result<Grouped<'v>, String> {
    let mut groups = Grouped::new();
    for item in list.as_array().into_iter().flatten() {
        groups.entry(node.element(schema, keys, item)?).or_default().push(item);
    }
    Ok(groups)
}

/// Null or empty: then the two sides are compared as leaves, to tell these apart.
pub(super) fn is_bare(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

/// Equal, with 1 and 1.0 the same number.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    a == b || compare_values(a, b).is_eq()
}
