//! `meta/v1.Table`: what `kubectl get` asks for instead of objects.

use serde_json::{Value, json};

use crate::respond::Shown;

/// The table of some objects; `include` is `Object`, `Metadata` or `None`.
pub(super) fn of(
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

pub(super) fn columns(shown: &Shown) -> Vec<Value> {
    shown.strategy.columns(shown.row)
}

/// An object's row.
pub(super) fn row(shown: &Shown, tree: Value, include: &str) -> Value {
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
