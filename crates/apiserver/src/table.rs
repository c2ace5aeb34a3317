//! `meta/v1.Table`: what `kubectl get` asks for instead of objects.

use custom::Column as CustomColumn;
use kinds::table::{Column, NAME, age, printer};
use serde_json::{Value, json};

use crate::respond::Shown;

/// The table of some objects; `include` is `Object`, `Metadata` or `None`.
pub(crate) fn of(
    shown: &Shown,
    objects: impl Iterator<Item = Value>,
    revision: &str,
    include: &str,
) -> Value {
    let printer = printer(shown.row);
    let own = shown.custom.as_ref().map(|custom| &custom.version().columns);
    let columns: Vec<Value> = match own {
        Some(own) => custom_columns(own),
        None => printer.columns.iter().map(column).collect(),
    };
    let rows: Vec<Value> = objects
        .map(|tree| {
            let cells = match own {
                Some(own) => custom_cells(own, &tree),
                None => (printer.cells)(&tree),
            };
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

/// The name, then the definition's columns; the age when it has none of its own.
fn custom_columns(own: &[CustomColumn]) -> Vec<Value> {
    let mut columns = vec![column(&NAME)];
    if own.is_empty() {
        let description = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
        columns.push(json!({"name": "Age", "type": "date", "format": "", "description": description, "priority": 0}));
    }
    columns.extend(own.iter().map(|c| {
        json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description, "priority": c.priority})
    }));
    columns
}

fn custom_cells(own: &[CustomColumn], object: &Value) -> Vec<Value> {
    let mut cells = vec![object["metadata"]["name"].clone()];
    if own.is_empty() {
        cells.push(age(object));
    }
    cells.extend(own.iter().map(|column| match (&*column.kind, column.cell(object)) {
        ("date", Value::String(at)) => kinds::table::since(&at.into()).into(),
        (_, cell) => cell,
    }));
    cells
}
