//! Patches on JSON trees: RFC 6902, RFC 7396 and Kubernetes' strategic merge.

mod fault;
mod json;
mod keyed;
mod merge;
mod strategic;

pub use fault::conversion_fault;
pub use json::{OPERATIONS_MAX, apply_json_patch, apply_tested_json_patch};
pub use merge::apply_merge_patch;
pub use strategic::apply_strategic_patch;

#[cfg(test)]
mod tests;
