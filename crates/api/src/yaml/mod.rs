//! YAML bodies, read as the JSON trees that upstream's reader makes of them (sigs.k8s.io/yaml, which
//! reads YAML 1.1 as go-yaml v2 does), with the keys that stand twice in a mapping.
//!
//! One pass over the events of a parser that does not recurse. Nesting and memory are limited while
//! the tree grows, what aliases repeat included.

mod build;
mod scalar;

use granit_parser::{Event, Options, Parser};
use serde_json::Value;

use crate::limits::DEPTH_MAX;

/// A body's first document.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Of keys that stand twice, the last holds.
    pub value: Value,
    /// Keys that stand twice, in the words of Go's YAML package: `line 9: key "foo" already set in
    /// map`.
    pub duplicates: Vec<String>,
}

/// Reads one document; further ones are not looked at. The error is a sentence for the client.
pub fn read(text: &[u8]) -> Result<Document, String> {
    let text = std::str::from_utf8(text).map_err(|_| "yaml: invalid UTF-8".to_owned())?;
    let mut builder = build::Builder::default();
    for event in Parser::new_from_str_with_options(text, options()) {
        let (event, span) = event.map_err(|e| format!("yaml: {e}"))?;
        let line = span.start.line();
        let done = match event {
            Event::MappingStart(_, anchor, _) => builder.open_mapping(anchor),
            Event::SequenceStart(_, anchor, _) => builder.open_sequence(anchor),
            Event::MappingEnd | Event::SequenceEnd => builder.close(line),
            Event::Scalar(text, style, anchor, tag) => {
                scalar::resolve(&text, style, tag.as_deref())
                    .and_then(|value| builder.scalar(value, anchor, line))
            }
            Event::Alias(anchor) => builder.alias(anchor, line),
            Event::DocumentEnd => break,
            _ => Ok(()),
        };
        done.map_err(|fault| format!("yaml: line {line}: {fault}"))?;
    }
    Ok(builder.finish())
}

/// Characters in which a key must end (go-yaml's scanner). The parser reads so far ahead of its events.
const KEY_MAX: usize = 1024;

/// The builder limits nesting, with an error of its own: the parser's limits lie beyond what it can have
/// read ahead by then.
fn options() -> Options {
    granit_parser::options! {
        emit_comments: false,
        simple_key_max_lookahead: KEY_MAX,
        flow_nesting_limit: DEPTH_MAX + KEY_MAX + 1,
        block_nesting_limit: DEPTH_MAX + KEY_MAX + 1,
    }
}

#[cfg(test)]
mod tests;
