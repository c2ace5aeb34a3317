//! Columns and cells of tables, in the form in which clients get them.

use custom::Column as CustomColumn;
use printers::{CREATION, Column, NAME, age};
use serde_json::{Value, json};

use crate::type_names::full_name;

/// Columns of a custom resource's Scale.
pub fn scale_columns() -> Vec<Value> {
    let replicas = |name: &str, description: &str| json!({"name": name, "type": "integer", "format": "", "description": description, "priority": 0});
    vec![
        column(&NAME),
        replicas("Desired", "Number of desired replicas"),
        replicas("Available", "Number of actual replicas"),
        json!({"name": "Age", "type": "date", "format": "", "description": described(CREATION), "priority": 0}),
    ]
}

pub fn column(column: &Column) -> Value {
    let Column { name, kind, format, priority, description } = column;
    json!({"name": name, "type": kind, "format": format, "description": described(description), "priority": priority})
}

/// The text, or that of the field it names.
fn described(text: &'static str) -> &'static str {
    let Some((owner, field)) = text.strip_prefix('@').and_then(|path| path.split_once('#')) else {
        return text;
    };
    api::prose::of_field(&full_name(owner), field).unwrap_or("")
}

/// The name, then the definition's columns; the age when it has none of its own.
pub fn custom_columns(own: &[CustomColumn]) -> Vec<Value> {
    let mut columns = vec![column(&NAME)];
    if own.is_empty() {
        columns.push(json!({"name": "Age", "type": "date", "format": "", "description": described(CREATION), "priority": 0}));
    }
    columns.extend(own.iter().map(|c| {
        json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description, "priority": c.priority})
    }));
    columns
}

pub fn custom_cells(own: &[CustomColumn], object: &Value) -> Vec<Value> {
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
