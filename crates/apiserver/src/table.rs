//! `meta/v1.Table`: what `kubectl get` asks for instead of objects.

use custom::Column as CustomColumn;
use printers::{CREATION, Column, NAME, age};
use serde_json::{Value, json};

use crate::respond::Shown;

/// The table of some objects; `include` is `Object`, `Metadata` or `None`.
pub(crate) fn of(
    shown: &Shown,
    objects: impl Iterator<Item = Value>,
    revision: &str,
    include: &str,
) -> Value {
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": revision},
        "columnDefinitions": columns(shown),
        "rows": objects.map(|tree| row(shown, tree, include)).collect::<Vec<Value>>(),
    })
}

pub(crate) fn columns(shown: &Shown) -> Vec<Value> {
    shown.strategy.columns(shown.row)
}

/// An object's row.
pub(crate) fn row(shown: &Shown, tree: Value, include: &str) -> Value {
    let (cells, conditions) = shown.strategy.cells(shown.row, &tree);
    let shown = match include {
        "Object" => tree,
        "None" => Value::Null,
        _ => crate::respond::partial(&tree),
    };
    let mut row = json!({"cells": cells, "object": shown});
    if let Some(conditions) = conditions {
        row["conditions"] = conditions;
    }
    row
}

/// Columns of a custom resource's Scale.
pub(crate) fn scale_columns() -> Vec<Value> {
    let replicas = |name: &str, description: &str| json!({"name": name, "type": "integer", "format": "", "description": description, "priority": 0});
    vec![
        column(&NAME),
        replicas("Desired", "Number of desired replicas"),
        replicas("Available", "Number of actual replicas"),
        json!({"name": "Age", "type": "date", "format": "", "description": described(CREATION), "priority": 0}),
    ]
}

pub(crate) fn column(column: &Column) -> Value {
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
pub(crate) fn custom_columns(own: &[CustomColumn]) -> Vec<Value> {
    let mut columns = vec![column(&NAME)];
    if own.is_empty() {
        columns.push(json!({"name": "Age", "type": "date", "format": "", "description": described(CREATION), "priority": 0}));
    }
    columns.extend(own.iter().map(|c| {
        json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description, "priority": c.priority})
    }));
    columns
}

pub(crate) fn custom_cells(own: &[CustomColumn], object: &Value) -> Vec<Value> {
    let mut cells = vec![object["metadata"]["name"].clone()];
    if own.is_empty() {
        cells.push(age(object));
    }
    cells.extend(own.iter().map(|column| match (&*column.kind, column.cell(object)) {
        ("date", Value::String(at)) => printers::since(&at.into()).into(),
        (_, cell) => cell,
    }));
    cells
}
