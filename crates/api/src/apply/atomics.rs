//! Lists, maps and structs of an applied object that are owned, and so replaced, as one.

use serde_json::Value;

use super::node::{Kind, Node};
use crate::schema::{Schema, Shape};

/// The paths of all of them, outermost first. The object must have passed [`super::check`].
pub fn atomics(schema: &Schema, node: Node<'_>, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    collect(schema, node, value, &mut String::new(), &mut found);
    found
}

fn collect(
    schema: &Schema,
    node: Node<'_>,
    value: &Value,
    path: &mut String,
    found: &mut Vec<String>,
) {
    let is_atomic = node.kind(schema, [Some(value), None]) == Kind::Atomic;
    if is_atomic && (value.is_object() || value.is_array()) {
        found.push(path.clone());
    }
    let end = path.len();
    match (node.shape(), value) {
        (Shape::Struct(_), Value::Object(map)) => {
            for (name, value) in map.iter().filter(|(name, _)| node.declares(schema, name)) {
                path.push_str(&format!(".{name}"));
                collect(schema, node.field(schema, name), value, path, found);
                path.truncate(end);
            }
        }
        (Shape::List(_), Value::Array(items)) => {
            for (at, item) in items.iter().enumerate() {
                path.push_str(&format!("[{at}]"));
                collect(schema, node.item(), item, path, found);
                path.truncate(end);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::atomics;
    use crate::apply::Node;
    use crate::schema::{Schema, Shape};

    #[test]
    fn what_is_replaced_as_one_is_found() {
        let schema = Schema::built_in();
        let deployment = Shape::Struct(schema.find("apps.v1.Deployment").expect("built in"));
        let of = |value| atomics(schema, Node::root(&deployment), &value);
        let pod = |spec| json!({"spec": {"template": {"spec": spec}}});
        assert!(
            of(json!({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 1}})).is_empty()
        );
        assert!(of(pod(json!({"containers": [{"name": "c", "image": "i"}]}))).is_empty());
        assert_eq!(
            of(pod(json!({"tolerations": [{"key": "k"}], "nodeSelector": {"a": "b"}}))),
            [".spec.template.spec.nodeSelector", ".spec.template.spec.tolerations"]
        );
        assert_eq!(
            of(pod(json!({"containers": [{"name": "c", "args": ["a"]}]}))),
            [".spec.template.spec.containers[0].args"]
        );
        let selector = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}});
        assert_eq!(of(selector), [".spec.selector"]);
    }
}
