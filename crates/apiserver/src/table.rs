//! `meta/v1.Table`: what `kubectl get` asks for instead of objects.

use custom::Column as CustomColumn;
use kinds::table::{CREATION, Column, NAME, age, printer};
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

fn column(column: &Column) -> Value {
    let Column { name, kind, format, priority, description } = column;
    json!({"name": name, "type": kind, "format": format, "description": described(description), "priority": priority})
}

/// The text, or that of the field it names.
fn described(text: &'static str) -> &'static str {
    let Some((owner, field)) = text.strip_prefix('@').and_then(|path| path.split_once('#')) else {
        return text;
    };
    api::prose::of_field(&crate::openapi::full_name(owner), field).unwrap_or("")
}

/// The name, then the definition's columns; the age when it has none of its own.
fn custom_columns(own: &[CustomColumn]) -> Vec<Value> {
    let mut columns = vec![column(&NAME)];
    if own.is_empty() {
        columns.push(json!({"name": "Age", "type": "date", "format": "", "description": described(CREATION), "priority": 0}));
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
