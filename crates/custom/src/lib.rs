//! Custom resources' definitions made usable, and what they make of objects: pruning, defaulting,
//! validation with CEL rules, apply's schema, printer columns, OpenAPI. Pure; who serves the objects
//! and where they are kept is the API server's.

mod apply;
mod columns;
mod compile;
mod declared;
mod definition;
mod field_path;
mod figures;
mod format;
mod lint;
mod node;
mod review;
mod rules;
mod shape;
mod validate;

pub use columns::{Column, Path};
pub use definition::{
    Compiled, Conversion, Definition, Names, ScalePaths, Version, priority, schema_of,
};
pub use figures::figures;
pub use lint::check_rules;
pub use node::Node;
pub use review::{Fault, ReviewVersion, accept};
pub use shape::{default, drop_nulls, prune};
pub use validate::validate;

#[cfg(test)]
mod tests;
