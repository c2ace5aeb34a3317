//! The memory that a request may take, judged from its texts before they are read.

use api::limits::{ENTRY, MAP, TREE_MAX, VALUE};
use memchr::memchr_iter;

use strategy::decode::media_type;

/// Texts up to this size are not looked through: looking would cost a small request more than waiting
/// for somewhat too much room.
const SMALL: usize = 2 * 1024;
/// Bytes of tree that a byte of a binary or small text may become: a list of small maps has about a
/// hundred.
const FACTOR: usize = 100;

/// Trees, of the size of the object, that exist at the same time; measured with objects of tens of
/// thousands of small maps (`benches/hostile`).
const CREATE_TREES: usize = 3;
const UPDATE_TREES: usize = 3;
/// An apply also holds sets of all fields.
const APPLY_TREES: usize = 6;

/// Bytes that a change may take: `body` of this media type, made to what is `stored`.
pub fn of_change(verb: &str, content_type: &str, body: &[u8], stored: &[u8]) -> usize {
    let media = media_type(content_type);
    let tree = of_body(media, body).saturating_add(of_json(stored));
    let trees = match verb {
        _ if media.starts_with("application/apply-patch") => APPLY_TREES,
        "create" => CREATE_TREES,
        _ => UPDATE_TREES,
    };
    tree.saturating_mul(trees)
}

/// Bytes of the tree of `size` bytes of stored JSON that are not looked through.
pub fn of_stored(size: usize) -> usize {
    size.saturating_mul(FACTOR).min(TREE_MAX)
}

fn of_body(media: &str, body: &[u8]) -> usize {
    let has = |byte: u8| memchr::memchr(byte, body).is_some();
    let estimate = match media {
        // Aliases may repeat up to what the reader allows, and so may copies.
        _ if media.ends_with("yaml") && has(b'&') && has(b'*') => TREE_MAX,
        "application/json-patch+json" if memchr::memmem::find(body, b"copy").is_some() => TREE_MAX,
        // A line without braces may be a map of its own.
        _ if media.ends_with("yaml") => of_text(body) + memchr_iter(b'\n', body).count() * MAP,
        _ if media.ends_with("cbor") || media.ends_with("protobuf") => body.len() * FACTOR,
        _ => of_json(body),
    };
    estimate.min(TREE_MAX)
}

fn of_json(text: &[u8]) -> usize {
    let estimate = if text.len() <= SMALL { text.len() * FACTOR } else { of_text(text) };
    estimate.min(TREE_MAX)
}

/// Counts what makes maps, entries and items, in strings too: a bound, as `api::limits` charges it.
fn of_text(text: &[u8]) -> usize {
    let count = |byte: u8| memchr_iter(byte, text).count();
    text.len() + count(b'{') * MAP + count(b':') * ENTRY + (count(b',') + count(b'[')) * VALUE
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = "application/json";

    #[test]
    fn texts_weigh_less_than_maps() {
        let long = format!(r#"{{"data":{{"a":"{}"}}}}"#, "x".repeat(1 << 20));
        assert!(of_change("create", JSON, long.as_bytes(), b"") < 4 << 20);
        let maps = format!("[{}]", vec![r#"{"a":0}"#; 50_000].join(","));
        assert!(of_change("create", JSON, maps.as_bytes(), b"") > CREATE_TREES * 50_000 * MAP);
    }

    #[test]
    fn what_may_expand_weighs_as_much_as_the_largest_tree() {
        for (media, body) in [
            ("application/yaml", "a: &a [x]\nb: [*a, *a]"),
            ("application/apply-patch+yaml; charset=utf-8", "a: &a [x]\nb: *a"),
            ("application/json-patch+json", r#"[{"op":"copy","from":"/a","path":"/b"}]"#),
        ] {
            assert!(of_change("create", media, body.as_bytes(), b"") >= TREE_MAX, "{media}");
        }
        let plain = of_change("create", "application/yaml", b"a: b", b"");
        assert!(plain < 10_000, "{plain}");
    }

    #[test]
    fn stored_objects_count() {
        let stored = format!("[{}]", vec![r#"{"a":0}"#; 50_000].join(","));
        let patch = of_change("patch", "application/merge-patch+json", b"{}", stored.as_bytes());
        assert!(patch > UPDATE_TREES * 50_000 * MAP);
    }
}
