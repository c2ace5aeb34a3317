//! Words of an expression. What is no word is told and left out, as upstream does.

use crate::issues::Issues;
use crate::literal;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// An operator or bracket, or one of the words that are tokens: `in`, `true`, `false`, `null`.
    Mark(&'static str),
    Name,
    /// A name in backquotes.
    QuotedName,
    Int,
    Uint,
    Float,
    String,
    Bytes,
    End,
}

/// A word and where it is: characters for people, bytes for slicing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token<'t> {
    pub(crate) word: Word,
    pub(crate) text: &'t str,
    pub(crate) at: u32,
    pub(crate) byte: usize,
}

/// Longest first.
const MARKS: [&str; 26] = [
    "==", "!=", "<=", ">=", "&&", "||", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!", "?", ":",
    "+", "*", "/", "%", "<", ">", "=", "&",
];
const WORDS: [&str; 4] = ["in", "true", "false", "null"];

pub(crate) fn tokens<'t>(text: &'t str, issues: &mut Issues) -> Vec<Token<'t>> {
    let mut lexer = Lexer { text, byte: 0, at: 0 };
    let mut found = Vec::new();
    while let Some(token) = lexer.next(issues) {
        found.push(token);
    }
    found.push(Token { word: Word::End, text: "<EOF>", at: lexer.at, byte: text.len() });
    found
}

struct Lexer<'t> {
    text: &'t str,
    byte: usize,
    at: u32,
}

impl<'t> Lexer<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.byte..]
    }

    fn skip(&mut self, bytes: usize) -> &'t str {
        let text = &self.rest()[..bytes];
        self.byte += bytes;
        self.at += text.chars().count() as u32;
        text
    }

    fn next(&mut self, issues: &mut Issues) -> Option<Token<'t>> {
        loop {
            self.skip_blank();
            let rest = self.rest();
            if rest.is_empty() {
                return None;
            }
            let (at, byte) = (self.at, self.byte);
            match word(rest) {
                Ok((word, length)) => {
                    return Some(Token { word, text: self.skip(length), at, byte });
                }
                Err(length) => {
                    let text = self.skip(length);
                    let shown = text.replace('\n', "\\n").replace('\t', "\\t").replace('\r', "\\r");
                    issues.add(
                        Some(at),
                        format!("Syntax error: token recognition error at: '{shown}'"),
                    );
                }
            }
        }
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let blank =
                rest.len() - rest.trim_start_matches(['\t', ' ', '\r', '\n', '\u{c}']).len();
            let comment = rest.starts_with("//").then(|| rest.find('\n').unwrap_or(rest.len()));
            match blank.max(comment.unwrap_or(0)) {
                0 => return,
                length => self.skip(length),
            };
        }
    }
}

/// The word that a text starts with and its length in bytes, or how much of it is none.
fn word(rest: &str) -> Result<(Word, usize), usize> {
    if let Some(found) = literal::string_length(rest) {
        return found;
    }
    if let Some(found) = literal::number_length(rest) {
        return Ok(found);
    }
    let name =
        rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_').len();
    if name > 0 {
        let word = WORDS.iter().find(|word| **word == &rest[..name]);
        return Ok((word.map_or(Word::Name, |word| Word::Mark(word)), name));
    }
    if let Some(quoted) = rest.strip_prefix('`') {
        let in_quotes = |c: char| c.is_ascii_alphanumeric() || "_.-/ ".contains(c);
        let length = quoted.len() - quoted.trim_start_matches(in_quotes).len();
        let closed = length > 0 && quoted[length..].starts_with('`');
        return if closed { Ok((Word::QuotedName, length + 2)) } else { Err(length + 1) };
    }
    let width = |bytes: usize| rest[bytes..].chars().next().map_or(bytes, |c| bytes + c.len_utf8());
    match MARKS.iter().find(|mark| rest.starts_with(**mark)) {
        // Half an operator takes the character behind it along.
        Some(&("=" | "&")) => Err(width(1)),
        Some(mark) => Ok((Word::Mark(mark), mark.len())),
        None if rest.starts_with('|') => Err(width(1)),
        None => Err(width(0)),
    }
}
