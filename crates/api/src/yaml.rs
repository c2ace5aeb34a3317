//! YAML bodies: read as JSON trees, with the keys that stand twice in a mapping.

use std::collections::HashSet;

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::Value;

/// Reads one document; of keys that stand twice, the last holds. The error is the reader's sentence.
pub fn read(text: &[u8]) -> Result<Value, String> {
    serde_yaml_ng::from_slice(text).map_err(|e| e.to_string())
}

/// A collection being read.
enum Open {
    Sequence,
    /// The keys so far, and whether a key comes next.
    Mapping(HashSet<String>, bool),
}

/// Keys that stand twice, in the words of Go's YAML package: `line 9: key "foo" already set in map`.
pub fn duplicate_keys(text: &[u8]) -> Vec<String> {
    let Ok(text) = std::str::from_utf8(text) else { return Vec::new() };
    let mut open: Vec<Open> = Vec::new();
    let mut found = Vec::new();
    // Where this parser gives up, the body itself is refused by the reader.
    for (event, span) in Parser::new_from_str(text).map_while(Result::ok) {
        let key = match event {
            Event::MappingStart(..) => {
                value_begins(&mut open);
                open.push(Open::Mapping(HashSet::new(), true));
                continue;
            }
            Event::SequenceStart(..) => {
                value_begins(&mut open);
                open.push(Open::Sequence);
                continue;
            }
            Event::MappingEnd | Event::SequenceEnd => {
                open.pop();
                continue;
            }
            Event::Scalar(text, style, ..) => shown(&text, style),
            Event::Alias(..) => {
                value_begins(&mut open);
                continue;
            }
            _ => continue,
        };
        if let Some(Open::Mapping(keys, is_key @ true)) = open.last_mut() {
            *is_key = false;
            if !keys.insert(key.clone()) {
                found.push(format!("line {}: key {key} already set in map", span.start.line()));
            }
        } else {
            value_begins(&mut open);
        }
    }
    found
}

/// What begins is the value of a mapping's key, or a key that is a collection itself.
fn value_begins(open: &mut [Open]) {
    if let Some(Open::Mapping(_, is_key)) = open.last_mut() {
        *is_key = !*is_key;
    }
}

/// A key as Go's `%#v` prints it.
fn shown(text: &str, style: ScalarStyle) -> String {
    let plain_number = style == ScalarStyle::Plain && text.parse::<i64>().is_ok();
    if plain_number { text.to_owned() } else { format!("{text:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_stand_twice() {
        let text = b"\na: 1\nb:\n  foo: 1\n  bar: [{x: 1, x: 2}]\n  foo: {}\nc: &c {k: v}\nd: *c\na: 2\n1: x\n1: y\n";
        assert_eq!(
            duplicate_keys(text),
            [
                r#"line 5: key "x" already set in map"#,
                r#"line 6: key "foo" already set in map"#,
                r#"line 9: key "a" already set in map"#,
                "line 11: key 1 already set in map",
            ]
        );
        assert_eq!(read(b"a: 1\na: 2"), Ok(serde_json::json!({"a": 2})));
    }

    #[test]
    fn nothing_twice() {
        assert!(duplicate_keys(b"a: {b: 1}\nb: {b: 1}\nc: [b, b]\n? [x]\n: y\n").is_empty());
        assert!(duplicate_keys(b"a: [").is_empty());
    }
}
