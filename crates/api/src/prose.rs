//! Descriptions of types and fields, for `explain` and OpenAPI.
//!
//! The texts are those of the `k8s-openapi` crate's schemas, packed at build time (`build.rs`), so
//! that none of them is checked in. They are unpacked when first asked for.

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::LazyLock;

static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/prose.gz"));

static TEXTS: LazyLock<HashMap<String, String>> = LazyLock::new(|| {
    let mut text = String::new();
    let mut unpacked = flate2::read::GzDecoder::new(PACKED);
    unpacked.read_to_string(&mut text).expect("build.rs packed this text");
    let pairs = text.split('\x1e').filter_map(|record| record.split_once('\x1f'));
    pairs.map(|(key, prose)| (key.to_owned(), prose.to_owned())).collect()
});

/// The description of a type by its OpenAPI name.
pub fn of_type(name: &str) -> Option<&'static str> {
    TEXTS.get(name).map(String::as_str)
}

/// The description of a type's field.
pub fn of_field(owner: &str, field: &str) -> Option<&'static str> {
    TEXTS.get(&format!("{owner}#{field}")).map(String::as_str)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_field_has_its_description() {
        let found = super::of_field("io.k8s.api.core.v1.Container", "image");
        assert!(found.is_some_and(|t| t.starts_with("Container image name.")), "{found:?}");
        assert!(super::of_type("io.k8s.api.core.v1.Pod").is_some());
    }
}
