//! The kinds that bodies are read as: one of each sort of field there is.

use api::schema::{Schema, Shape};

const KINDS: [&str; 8] = [
    "core.v1.Pod",
    "apps.v1.Deployment",
    "core.v1.ConfigMap",
    "core.v1.Event",
    "apiextensions.v1.CustomResourceDefinition",
    "networking.v1.NetworkPolicy",
    "meta.v1.DeleteOptions",
    "",
];

/// The kind that a first byte chooses, and what is left; free form is one of them.
pub fn choose(data: &[u8]) -> Option<(Shape, &[u8])> {
    let (first, rest) = data.split_first()?;
    let kind = KINDS[usize::from(*first) % KINDS.len()];
    Some((Schema::built_in().find(kind).map_or(Shape::Any, Shape::Struct), rest))
}
