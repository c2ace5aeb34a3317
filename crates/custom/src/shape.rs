//! What pruning and defaulting make of an object.

use api::limits::{Budget, EXPANSION_MAX, Exceeded, Findings, text_size};
use serde_json::{Map, Value};

use crate::node::Node;

/// Fields every object has, whatever its schema says of them.
const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Drops what the schema does not know; returns the paths of what was dropped, as many as strict
/// decoding reports.
pub fn prune(root: &Node, object: &mut Value) -> Vec<String> {
    let mut pruner = Pruner::default();
    if let (false, Some(map)) = (root.preserve, object.as_object_mut()) {
        pruner.map(Some(root), map, true);
    } else {
        pruner.kept(root, object);
    }
    pruner.unknown.into_list()
}

enum Step {
    Key(String),
    Index(usize),
}

#[derive(Default)]
struct Pruner {
    unknown: Findings,
    /// From the root to where the walk is. It becomes text for findings only: keys may be as long as
    /// the body, and lists below them, too.
    path: Vec<Step>,
}

fn shown(path: &[Step], last: &str) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => text.extend([".", key]),
            Step::Index(at) => text.push_str(&format!("[{at}]")),
        }
    }
    if text.is_empty() { last.to_owned() } else { format!("{text}.{last}") }
}

impl Pruner {
    fn below(&mut self, step: Step, node: Option<&Node>, value: &mut Value) {
        self.path.push(step);
        self.value(node, value);
        self.path.pop();
    }

    fn value(&mut self, node: Option<&Node>, value: &mut Value) {
        if let Some(node) = node.filter(|n| n.preserve) {
            return self.kept(node, value);
        }
        match value {
            Value::Object(map) => self.map(node, map, node.is_some_and(|n| n.embedded)),
            Value::Array(items) => {
                let below = node.and_then(|n| n.items.as_deref());
                for (at, item) in items.iter_mut().enumerate() {
                    self.below(Step::Index(at), below, item);
                }
            }
            _ => {}
        }
    }

    fn map(&mut self, node: Option<&Node>, map: &mut Map<String, Value>, is_object: bool) {
        map.retain(|key, value| {
            if is_object && META.contains(&key.as_str()) {
                return true;
            }
            let Some(below) = node.and_then(|n| n.field(key)) else {
                self.unknown.add(|| shown(&self.path, key));
                return false;
            };
            self.below(Step::Key(key.clone()), Some(below), value);
            true
        });
    }

    /// Unknown fields stay here, but declared ones may be strict again.
    fn kept(&mut self, node: &Node, value: &mut Value) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    if let Some(below) = node.field(key) {
                        self.below(Step::Key(key.clone()), Some(below), value);
                    }
                }
            }
            Value::Array(items) => {
                let Some(below) = &node.items else { return };
                for (at, item) in items.iter_mut().enumerate() {
                    self.below(Step::Index(at), Some(below), item);
                }
            }
            _ => {}
        }
    }
}

/// Fills in defaults, also where a null stands that may not. Fails, with the object partly filled,
/// when the defaults add more than [`EXPANSION_MAX`] bytes: each item of a long list takes its own.
pub fn default(node: &Node, value: &mut Value) -> Result<(), Exceeded> {
    fill(node, value, &mut Budget::new(EXPANSION_MAX))
}

fn fill(node: &Node, value: &mut Value, budget: &mut Budget) -> Result<(), Exceeded> {
    match value {
        Value::Object(map) => {
            for (name, below) in &node.properties {
                let Some(default) = &below.default else { continue };
                match map.get_mut(&**name) {
                    Some(value) => replace_null(below, value, budget)?,
                    None => {
                        budget.take(name.len() + text_size(default))?;
                        map.insert(name.to_string(), default.clone());
                    }
                }
            }
            for (key, value) in map {
                if let Some(below) = node.field(key) {
                    replace_null(below, value, budget)?;
                    fill(below, value, budget)?;
                }
            }
        }
        Value::Array(items) => {
            let Some(below) = node.items.as_deref() else { return Ok(()) };
            for item in items {
                replace_null(below, item, budget)?;
                fill(below, item, budget)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn replace_null(node: &Node, value: &mut Value, budget: &mut Budget) -> Result<(), Exceeded> {
    if let (true, false, Some(default)) = (value.is_null(), node.nullable, &node.default) {
        budget.take(text_size(default))?;
        *value = default.clone();
    }
    Ok(())
}

/// Drops nulls that may not be there and have no default.
pub fn drop_nulls(node: &Node, value: &mut Value) {
    match value {
        Value::Object(map) => map.retain(|key, value| {
            let Some(below) = node.properties.get(key.as_str()) else { return true };
            drop_nulls(below, value);
            !value.is_null() || below.nullable || below.default.is_some()
        }),
        Value::Array(items) => {
            if let Some(below) = node.items.as_deref() {
                items.iter_mut().for_each(|item| drop_nulls(below, item));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_fields_go_and_defaults_come() {
        let node = Node::parse(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "size": {"type": "integer", "default": 3},
                "note": {"type": "string", "nullable": true},
                "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {"type": "string", "default": "x"}}}},
            }},
        }}))
        .expect("a schema");
        let mut object = json!({
            "kind": "K", "metadata": {"name": "n"}, "status": {},
            "spec": {"bogus": 1, "size": null, "note": null, "any": {"x": [1]}, "map": {"k": {"b": 1}}},
        });
        let unknown = prune(&node, &mut object);
        assert_eq!(unknown, ["spec.bogus", "spec.map.k.b", "status"]);
        drop_nulls(&node, &mut object);
        default(&node, &mut object).expect("small defaults");
        let want = json!({
            "kind": "K", "metadata": {"name": "n"},
            "spec": {"size": 3, "note": null, "any": {"x": [1]}, "map": {"k": {"a": "x"}}},
        });
        assert_eq!(object, want);
    }

    #[test]
    fn defaults_of_many_items_have_a_budget() {
        let node = Node::parse(&json!({"type": "object", "properties": {
            "list": {"type": "array", "items": {"type": "object", "properties": {
                "text": {"type": "string", "default": "x".repeat(1000)},
            }}},
            "nulls": {"type": "array", "items": {"type": "string", "default": "x".repeat(1000)}},
        }}))
        .expect("a schema");
        for list in [
            json!({"list": vec![json!({}); 100_000]}),
            json!({"nulls": vec![Value::Null; 100_000]}),
        ] {
            let mut object = list;
            assert_eq!(default(&node, &mut object), Err(Exceeded));
        }
    }
}
