//! Patches on JSON trees: RFC 6902, RFC 7396 and the original's strategic merge.

mod json;
mod merge;
mod strategic;

pub use json::apply_json_patch;
pub use merge::apply_merge_patch;
pub use strategic::apply_strategic_patch;

#[cfg(test)]
mod tests;
