//! JSON as CEL sees it: typed by the schema, with field names made identifiers.

use std::collections::HashMap;
use std::sync::Arc;

use cel::Value as Cel;
use cel::objects::{Key, Map};
use serde_json::Value;

use crate::node::Node;

/// A value at a place of the schema. Only declared fields and map entries are visible to rules.
pub(crate) fn to_cel(node: &Node, value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(b) => Cel::Bool(*b),
        Value::Number(n) => match n.as_i64().filter(|_| !node.types.contains(&"number")) {
            Some(n) => Cel::Int(n),
            None => Cel::Float(n.as_f64().unwrap_or(0.0)),
        },
        Value::String(text) => of_format(&node.checks.format, text),
        Value::Array(items) => {
            let below = node.items.as_deref();
            let open = Node::default();
            let items = items.iter().map(|item| to_cel(below.unwrap_or(&open), item));
            Cel::List(Arc::new(items.collect()))
        }
        Value::Object(map) => {
            let mut seen = HashMap::new();
            for (name, value) in map {
                if node.embedded && name == "metadata" {
                    seen.insert(Key::String(Arc::new(name.clone())), metadata(value));
                    continue;
                }
                let Some((name, below)) = visible(node, name) else { continue };
                seen.insert(Key::String(Arc::new(name)), to_cel(below, value));
            }
            Cel::Map(Map { map: Arc::new(seen) })
        }
    }
}

/// Of metadata, rules see the name only, whatever the schema declares.
fn metadata(value: &Value) -> Cel {
    let named = ["name", "generateName"].into_iter().filter_map(|key| {
        let text = value.get(key)?.as_str()?.to_owned();
        Some((Key::String(Arc::new(key.to_owned())), Cel::String(Arc::new(text))))
    });
    Cel::Map(Map { map: Arc::new(named.collect()) })
}

/// The name a rule uses for a field, and the field's schema.
fn visible<'n>(node: &'n Node, name: &str) -> Option<(String, &'n Node)> {
    static OPEN: std::sync::LazyLock<Node> = std::sync::LazyLock::new(Node::default);
    if let Some(declared) = node.properties.get(name) {
        return Some((escaped(name), declared));
    }
    if let Some(values) = &node.additional {
        return Some((name.to_owned(), values));
    }
    // The root of every object has these, declared or not.
    let always = node.embedded && matches!(name, "apiVersion" | "kind");
    let untyped = node.properties.is_empty() && node.types.is_empty();
    (always || untyped).then(|| (name.to_owned(), &*OPEN))
}

fn of_format(format: &str, text: &str) -> Cel {
    match format {
        "date-time" | "datetime" => {
            let parsed = text.parse::<chrono::DateTime<chrono::FixedOffset>>();
            parsed.map_or_else(|_| Cel::String(Arc::new(text.to_owned())), Cel::Timestamp)
        }
        _ => Cel::String(Arc::new(text.to_owned())),
    }
}

/// A field's name as rules spell it (apiserver `cel.Escape`).
pub(crate) fn escaped(name: &str) -> String {
    if kinds::is_reserved_in_cel(name) {
        return format!("__{name}__");
    }
    let mut out = name.replace("__", "__underscores__");
    for (character, word) in [(".", "__dot__"), ("-", "__dash__"), ("/", "__slash__")] {
        out = out.replace(character, word);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn names_that_rules_cannot_spell_are_escaped() {
        for (name, want) in [
            ("size", "size"),
            ("while", "__while__"),
            ("var", "__var__"),
            ("a.b-c/d", "a__dot__b__dash__c__slash__d"),
            ("x__y", "x__underscores__y"),
        ] {
            assert_eq!(escaped(name), want);
        }
    }
}
