//! Lines into words: the flags in front, quoted words, key and value, JSON arrays.

use crate::error::{Error, Result};
use crate::node::Arguments;

/// The blanks that part words. No line feed: a line has none.
pub(crate) const BLANKS: [char; 5] = ['\t', '\x0b', '\x0c', '\r', ' '];

/// Splits at runs of blanks. A blank at an end leaves an empty word there.
pub(crate) fn at_blanks(text: &str, limit: usize) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text;
    while words.len() + 1 < limit {
        let Some(at) = rest.find(BLANKS) else { break };
        words.push(&rest[..at]);
        rest = rest[at..].trim_start_matches(BLANKS);
    }
    words.push(rest);
    words
}

/// Keyword, flags, and the rest of an instruction's line.
pub(crate) fn command(line: &str, escape: char) -> (String, Vec<String>, String) {
    let parts = at_blanks(line.trim(), 2);
    let Some(rest) = parts.get(1) else { return (parts[0].to_owned(), Vec::new(), String::new()) };
    let (flags, rest) = flags(rest, escape);
    (parts[0].to_owned(), flags, rest.trim().to_owned())
}

/// The words in front that begin with `--`; quotes and escapes in them are taken away. `--` ends them.
fn flags(line: &str, escape: char) -> (Vec<String>, &str) {
    let mut found = Vec::new();
    let mut rest = line.trim_start();
    while rest.starts_with("--") {
        let (word, after) = flag(rest, escape);
        rest = after.trim_start();
        match word {
            Some(word) if word == "--" => break,
            Some(word) => found.push(word),
            None => {}
        }
    }
    (found, rest)
}

fn flag(text: &str, escape: char) -> (Option<String>, &str) {
    let mut word = String::new();
    let mut quote = None;
    let mut quotes_seen = false;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return (Some(word), &text[at..]),
            None if c == '\'' || c == '"' => (quote, quotes_seen) = (Some(c), true),
            Some(q) if c == q => quote = None,
            // An escape at the very end is dropped.
            _ if c == escape => word.extend(chars.next().map(|(_, next)| next)),
            _ => word.push(c),
        }
    }
    ((quotes_seen || !word.is_empty()).then_some(word), "")
}

/// Words apart, their quotes and escapes kept.
pub(crate) fn quoted_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            words.extend(word.take());
            continue;
        }
        let current = word.get_or_insert_default();
        if c == escape && quote != Some('\'') {
            // An escape at the very end is dropped.
            let Some(next) = chars.next() else { break };
            current.extend([c, next]);
            continue;
        }
        match quote {
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(q) if c == q => quote = None,
            _ => {}
        }
        current.push(c);
    }
    words.extend(word.filter(|w| !w.is_empty()));
    words
}

/// ENV and LABEL: `key=value …`, or the old form `key value`.
pub(crate) fn pairs(rest: &str, keyword: &str, escape: char) -> Result<Arguments> {
    let words = quoted_words(rest, escape);
    let Some(first) = words.first() else { return Ok(Arguments::Pairs(Vec::new())) };
    if !first.contains('=') {
        let parts = at_blanks(rest, 2);
        let Some(value) = parts.get(1) else {
            return Err(Error::new(format!("{keyword} must have two arguments"))
                .with_fix(format!("write {keyword} {}=<value>", parts[0])));
        };
        let pair = (parts[0].to_owned(), (*value).to_owned(), false);
        return Ok(Arguments::Pairs(vec![pair]));
    }
    let pair = |word: &String| match word.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned(), true)),
        None => Err(Error::new(format!(
            "Syntax error - can't find = in {word:?}. Must be of the form: name=value"
        ))
        .with_fix("put a value with blanks in quotes")),
    };
    Ok(Arguments::Pairs(words.iter().map(pair).collect::<Result<_>>()?))
}

/// A JSON array of strings; `None` when the text is none at all.
pub(crate) fn json(text: &str) -> Result<Option<Vec<String>>> {
    let text = text.trim_start();
    if !text.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else { return Ok(None) };
    let string = |value| match value {
        serde_json::Value::String(text) => Ok(text),
        _ => Err(Error::new(
            "when using JSON array syntax, arrays must be comprised of strings only",
        )
        .with_fix("put every element in double quotes")),
    };
    values.into_iter().map(string).collect::<Result<_>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_their_quotes() {
        let words = |text| quoted_words(text, '\\');
        assert_eq!(words(r#"a  "b c" 'd e'f g\ h"#), ["a", r#""b c""#, "'d e'f", r"g\ h"]);
        assert_eq!(words("föo 'bàr x'"), ["föo", "'bàr x'"]);
        assert_eq!(words(r"a\"), ["a"]);
        assert_eq!(words("''"), ["''"]);
        assert!(words("  ").is_empty());
    }

    #[test]
    fn flags_end_at_the_first_other_word() {
        let split = |text| {
            let (keyword, flags, rest) = command(text, '\\');
            (keyword, flags.join("|"), rest)
        };
        let want = |k: &str, f: &str, r: &str| (k.to_owned(), f.to_owned(), r.to_owned());
        assert_eq!(split("COPY --a=1 --b  x --c"), want("COPY", "--a=1|--b", "x --c"));
        assert_eq!(split(r#"RUN --m="a b" --n=c\ d ls"#), want("RUN", "--m=a b|--n=c d", "ls"));
        assert_eq!(split("RUN -- --x"), want("RUN", "", "--x"));
        assert_eq!(split("RUN --x"), want("RUN", "--x", ""));
        assert_eq!(split("RUN -x"), want("RUN", "", "-x"));
    }
}
