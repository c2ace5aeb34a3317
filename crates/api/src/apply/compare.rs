//! What one state of an object has that another has not.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::element::Element;
use super::filter::Filter;
use super::node::{Kind, Node};
use super::set::FieldSet;
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
        let mut walk = Walk { schema, path: Vec::new(), found: Differences::default() };
        walk.compare(node, Some(old), Some(new))?;
        Ok(walk.found)
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

    pub fn changed(&self) -> FieldSet {
        self.modified.union(&self.added)
    }
}

struct Walk<'a> {
    schema: &'a Schema,
    path: Vec<Element>,
    found: Differences,
}

type Side<'v> = Option<&'v Value>;

impl<'a> Walk<'a> {
    fn compare(&mut self, node: Node<'a>, old: Side<'_>, new: Side<'_>) -> Result<(), String> {
        let is_leaf = match node.kind(self.schema, [old, new]) {
            Kind::Scalar | Kind::Atomic => true,
            _ if is_bare(old) && is_bare(new) => true,
            Kind::Struct(_) | Kind::Map => {
                self.fields(node, old, new)?;
                false
            }
            Kind::List(keys) => {
                self.items(node, keys, old, new)?;
                false
            }
        };
        match (old, new) {
            (None, _) => self.found.added.insert(&self.path),
            (_, None) => self.found.removed.insert(&self.path),
            (Some(old), Some(new)) if is_leaf && !same(old, new) => {
                self.found.modified.insert(&self.path);
            }
            _ => {}
        }
        Ok(())
    }

    fn fields(&mut self, node: Node<'a>, old: Side<'_>, new: Side<'_>) -> Result<(), String> {
        let (old, new) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
        let is_old = |name: &String| old.is_some_and(|map| map.contains_key(name));
        let only_new = new.into_iter().flat_map(Map::keys).filter(|name| !is_old(name));
        for name in old.into_iter().flat_map(Map::keys).chain(only_new) {
            let (old, new) = (old.and_then(|m| m.get(name)), new.and_then(|m| m.get(name)));
            self.path.push(Element::field(name));
            self.compare(node.field(self.schema, name), old, new)?;
            self.path.pop();
        }
        Ok(())
    }

    fn items(
        &mut self,
        node: Node<'a>,
        keys: &[Box<str>],
        old: Side<'_>,
        new: Side<'_>,
    ) -> Result<(), String> {
        let old = grouped(self.schema, &node, keys, old)?;
        let new = grouped(self.schema, &node, keys, new)?;
        let elements: BTreeSet<&Element> = old.keys().chain(new.keys()).collect();
        for element in elements {
            let before = old.get(element).map_or(&[][..], Vec::as_slice);
            let after = new.get(element).map_or(&[][..], Vec::as_slice);
            self.path.push(element.clone());
            self.same_items(node.item(), before, after)?;
            self.path.pop();
        }
        Ok(())
    }

    /// Compares what stands under one key: usually one item on each side, but updates may store
    /// duplicates, which are owned as one value.
    fn same_items(&mut self, node: Node<'a>, old: &[&Value], new: &[&Value]) -> Result<(), String> {
        match (old.len(), new.len()) {
            (0 | 1, 0 | 1) => {
                return self.compare(node, old.first().copied(), new.first().copied());
            }
            (0 | 1, _) => {
                if let Some(one) = old.first() {
                    self.compare(node, Some(one), None)?;
                }
                self.found.added.insert(&self.path);
            }
            (_, 0 | 1) => {
                if let Some(one) = new.first() {
                    self.compare(node, None, Some(one))?;
                }
                self.found.removed.insert(&self.path);
            }
            _ if old != new => self.found.modified.insert(&self.path),
            _ => {}
        }
        Ok(())
    }
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
    a == b || super::Scalar(a.clone()) == super::Scalar(b.clone())
}
