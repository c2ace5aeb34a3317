//! What pruning and defaulting make of an object.

use serde_json::{Map, Value};

use crate::node::Node;

/// Fields every object has, whatever its schema says of them.
const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Drops what the schema does not know; the paths of what was dropped.
pub fn prune(root: &Node, object: &mut Value) -> Vec<String> {
    let mut pruner = Pruner { unknown: Vec::new() };
    if let (false, Some(map)) = (root.preserve, object.as_object_mut()) {
        pruner.map(Some(root), map, "", true);
    } else {
        pruner.kept(root, object, "");
    }
    pruner.unknown
}

struct Pruner {
    unknown: Vec<String>,
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

impl Pruner {
    fn value(&mut self, node: Option<&Node>, value: &mut Value, path: &str) {
        if let Some(node) = node.filter(|n| n.preserve) {
            return self.kept(node, value, path);
        }
        match value {
            Value::Object(map) => {
                self.map(node, map, path, node.is_some_and(|n| n.embedded));
            }
            Value::Array(items) => {
                let below = node.and_then(|n| n.items.as_deref());
                for (at, item) in items.iter_mut().enumerate() {
                    self.value(below, item, &format!("{path}[{at}]"));
                }
            }
            _ => {}
        }
    }

    fn map(&mut self, node: Option<&Node>, map: &mut Map<String, Value>, path: &str, object: bool) {
        map.retain(|key, value| {
            if object && META.contains(&key.as_str()) {
                return true;
            }
            let Some(below) = node.and_then(|n| n.field(key)) else {
                self.unknown.push(join(path, key));
                return false;
            };
            self.value(Some(below), value, &join(path, key));
            true
        });
    }

    /// Unknown fields stay here, but declared ones may be strict again.
    fn kept(&mut self, node: &Node, value: &mut Value, path: &str) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    if let Some(below) = node.field(key) {
                        self.value(Some(below), value, &join(path, key));
                    }
                }
            }
            Value::Array(items) => {
                if let Some(below) = &node.items {
                    for (at, item) in items.iter_mut().enumerate() {
                        self.value(Some(below), item, &format!("{path}[{at}]"));
                    }
                }
            }
            _ => {}
        }
    }
}

/// Fills in defaults, also where a null stands that may not.
pub fn default(node: &Node, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, below) in &node.properties {
                let Some(default) = &below.default else { continue };
                match map.get_mut(&**name) {
                    Some(value) => replace_null(below, value),
                    None => drop(map.insert(name.to_string(), default.clone())),
                }
            }
            for (key, value) in map {
                if let Some(below) = node.field(key) {
                    replace_null(below, value);
                    default(below, value);
                }
            }
        }
        Value::Array(items) => {
            let Some(below) = node.items.as_deref() else { return };
            for item in items {
                replace_null(below, item);
                default(below, item);
            }
        }
        _ => {}
    }
}

fn replace_null(node: &Node, value: &mut Value) {
    if let (true, false, Some(default)) = (value.is_null(), node.nullable, &node.default) {
        *value = default.clone();
    }
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
        default(&node, &mut object);
        let want = json!({
            "kind": "K", "metadata": {"name": "n"},
            "spec": {"size": 3, "note": null, "any": {"x": [1]}, "map": {"k": {"a": "x"}}},
        });
        assert_eq!(object, want);
    }
}
