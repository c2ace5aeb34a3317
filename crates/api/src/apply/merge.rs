//! Laying an applied configuration over an object.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::element::Element;
use super::node::{Kind, Node};
use crate::schema::Schema;

/// `applied` over `live`: structs and maps field by field, lists by their kind, leaves as applied.
///
/// `None` when nothing is left. `applied` must have passed [`super::check`].
pub fn merge(
    schema: &Schema,
    node: Node<'_>,
    live: Option<&Value>,
    applied: Option<&Value>,
) -> Result<Option<Value>, String> {
    let leaf = || Ok(applied.or(live).cloned());
    match node.kind(schema, [live, applied]) {
        Kind::Scalar | Kind::Atomic => leaf(),
        _ if is_bare(live) && is_bare(applied) => leaf(),
        Kind::Struct(_) | Kind::Map => merge_maps(schema, node, live, applied),
        Kind::List(keys) => merge_lists(schema, node, keys, live, applied),
    }
}

fn is_bare(side: Option<&Value>) -> bool {
    match side {
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        _ => true,
    }
}

fn merge_maps(
    schema: &Schema,
    node: Node<'_>,
    live: Option<&Value>,
    applied: Option<&Value>,
) -> Result<Option<Value>, String> {
    let (live, applied) = (live.and_then(Value::as_object), applied.and_then(Value::as_object));
    let mut merged = Map::new();
    let names = live.into_iter().chain(applied).flat_map(Map::keys);
    for name in names {
        if merged.contains_key(name) {
            continue;
        }
        let of = |side: Option<&'_ Map<String, Value>>| side.and_then(|m| m.get(name)).cloned();
        let (live, applied) = (of(live), of(applied));
        let value = merge(schema, node.field(schema, name), live.as_ref(), applied.as_ref())?;
        merged.extend(value.map(|value| (name.clone(), value)));
    }
    Ok((!merged.is_empty()).then_some(Value::Object(merged)))
}

/// A list's items with what tells them apart; of duplicates the place, but no item to merge with.
struct Indexed<'v> {
    order: Vec<Element>,
    items: BTreeMap<Element, Option<&'v Value>>,
    raw: &'v [Value],
}

impl<'v> Indexed<'v> {
    fn new(
        schema: &Schema,
        node: &Node<'_>,
        keys: &[Box<str>],
        list: Option<&'v Value>,
    ) -> Result<Indexed<'v>, String> {
        let raw = list.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let mut indexed = Indexed { order: Vec::new(), items: BTreeMap::new(), raw };
        for item in raw {
            let element = node.element(schema, keys, item)?;
            let known = indexed.items.contains_key(&element);
            indexed.items.insert(element.clone(), (!known).then_some(item));
            indexed.order.push(element);
        }
        Ok(indexed)
    }

    fn has(&self, element: &Element) -> bool {
        self.items.contains_key(element)
    }

    fn get(&self, element: &Element) -> Option<&'v Value> {
        self.items.get(element).copied().flatten()
    }
}

/// Applied items come in their own order; live ones keep their places between them.
fn merge_lists(
    schema: &Schema,
    node: Node<'_>,
    keys: &[Box<str>],
    live: Option<&Value>,
    applied: Option<&Value>,
) -> Result<Option<Value>, String> {
    let live = Indexed::new(schema, &node, keys, live)?;
    let applied = Indexed::new(schema, &node, keys, applied)?;
    let mut merged = Vec::new();
    for step in interleave(&live, &applied) {
        let (left, right) = match step {
            Step::Live(at) => (live.raw.get(at), None),
            Step::Applied(at) => {
                let element = &applied.order[at];
                (live.get(element), applied.get(element))
            }
        };
        merged.extend(merge(schema, node.item(), left, right)?);
    }
    Ok((!merged.is_empty()).then_some(Value::Array(merged)))
}

enum Step {
    Live(usize),
    Applied(usize),
}

/// The order of the merged list.
fn interleave(live: &Indexed<'_>, applied: &Indexed<'_>) -> Vec<Step> {
    let mut shared = applied.order.iter().filter(|e| live.has(e));
    let mut next_shared = shared.next();
    let mut taken: BTreeSet<&Element> = BTreeSet::new();
    let mut steps = Vec::new();
    let (mut l, mut a) = (0, 0);
    while l < live.order.len() || a < applied.order.len() {
        let (left, right) = (live.order.get(l), applied.order.get(a));
        if let (Some(left), Some(right)) = (left, right) {
            if left == right {
                taken.insert(right);
                steps.push(Step::Applied(a));
                (l, a) = (l + 1, a + 1);
                next_shared = shared.next();
                continue;
            }
            if applied.has(left) && next_shared.is_some_and(|next| next != left) {
                // Shared, but another shared item comes before it.
                l += 1;
                continue;
            }
        }
        if let Some(left) = left {
            if !applied.has(left) {
                steps.push(Step::Live(l));
                l += 1;
                continue;
            }
            if taken.contains(left) {
                l += 1;
            }
        }
        if let Some(right) = right {
            taken.insert(right);
            steps.push(Step::Applied(a));
            a += 1;
            if next_shared == Some(right) {
                next_shared = shared.next();
            }
        }
    }
    steps
}
