//! `meta/v1.Table`: what `kubectl get` asks for instead of objects.

use std::sync::Arc;

use api::Object;
use api::registry::Resource;
use kinds::table::{Column, printer};
use serde_json::{Value, json};

/// The table of some objects; `include` is `Object`, `Metadata` or `None`.
pub(crate) fn of(row: &Resource, objects: &[Arc<Object>], revision: &str, include: &str) -> Value {
    let printer = printer(row);
    let columns: Vec<Value> = printer.columns.iter().map(column).collect();
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let tree = object.to_value();
            let cells = (printer.cells)(&tree);
            let shown = match include {
                "Object" => tree,
                "None" => Value::Null,
                _ => crate::respond::partial(&tree),
            };
            json!({"cells": cells, "object": shown})
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": revision},
        "columnDefinitions": columns, "rows": rows,
    })
}

fn column(&(name, kind, format, wide): &Column) -> Value {
    let description = if format == "name" {
        "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names"
    } else {
        ""
    };
    json!({"name": name, "type": kind, "format": format, "description": description, "priority": i32::from(wide)})
}
