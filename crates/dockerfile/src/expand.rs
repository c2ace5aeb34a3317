//! Variables and quotes in arguments, as a shell treats them.
//!
//! `$x`, `${x}`, `${x:-…}`, `${x-…}`, `:+`, `+`, `:?`, `?`, `#`, `##`, `%`, `%%`, `/` and `//`. Single quotes
//! keep everything, double quotes all but `$` and the escape sign.

use std::collections::BTreeSet;

use regex::Regex;

use crate::error::{Error, Result};

/// `${a:-${b:-…}}` nested deeper is no text that a person wrote.
const DEEPEST: usize = 64;

/// Where variables' values come from.
pub trait Variables {
    fn get(&self, name: &str) -> Option<String>;
}

impl Variables for std::collections::BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<String> {
        std::collections::BTreeMap::get(self, name).cloned()
    }
}

/// `NAME=value`; the last one of a name counts.
impl Variables for Vec<String> {
    fn get(&self, name: &str) -> Option<String> {
        let split = self.iter().rev().map(|e| e.split_once('=').unwrap_or((e, "")));
        split.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).next()
    }
}

pub struct NoVariables;

impl Variables for NoVariables {
    fn get(&self, _: &str) -> Option<String> {
        None
    }
}

/// How text is read.
#[derive(Clone, Copy, Debug)]
pub struct Lexer {
    pub escape: char,
    /// Quotes stay in the result.
    pub raw_quotes: bool,
    /// Escape signs stay in the result.
    pub raw_escapes: bool,
    /// Quotes are letters like others.
    pub ignore_quotes: bool,
    /// A variable without a value stays as it is written.
    pub keep_unset: bool,
}

/// A text with its variables replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    pub text: String,
    /// The text split at blanks that are not quoted.
    pub words: Vec<String>,
    pub matched: BTreeSet<String>,
    pub unmatched: BTreeSet<String>,
}

impl Lexer {
    pub fn new(escape: char) -> Lexer {
        Lexer {
            escape,
            raw_quotes: false,
            raw_escapes: false,
            ignore_quotes: false,
            keep_unset: false,
        }
    }

    pub fn expand(&self, text: &str, variables: &dyn Variables) -> Result<Expanded> {
        let mut scan = Scan {
            lexer: *self,
            variables,
            chars: text.chars().collect(),
            at: 0,
            depth: 0,
            out: Expanded::default(),
        };
        let done = scan.until(None, self.raw_escapes);
        let (text, words) = done.map_err(|mut e| {
            e.message = format!("failed to process {text:?}: {}", e.message);
            e
        })?;
        Ok(Expanded { text, words, ..scan.out })
    }

    pub fn word(&self, text: &str, variables: &dyn Variables) -> Result<String> {
        Ok(self.expand(text, variables)?.text)
    }

    pub fn words(&self, text: &str, variables: &dyn Variables) -> Result<Vec<String>> {
        Ok(self.expand(text, variables)?.words)
    }
}

#[derive(Default)]
struct Words {
    done: Vec<String>,
    current: String,
}

impl Words {
    fn add(&mut self, c: char) {
        if c.is_whitespace() {
            self.end();
        } else {
            self.current.push(c);
        }
    }

    fn end(&mut self) {
        if !self.current.is_empty() {
            self.done.push(std::mem::take(&mut self.current));
        }
    }
}

struct Scan<'a> {
    lexer: Lexer,
    variables: &'a dyn Variables,
    chars: Vec<char>,
    at: usize,
    depth: usize,
    out: Expanded,
}

fn bad_substitution() -> Error {
    Error::new("syntax error: bad substitution").with_fix("escape the $ to have it as a letter")
}

impl Scan<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek();
        self.at += usize::from(c.is_some());
        c
    }

    /// Reads up to `stop` or the end.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<(String, Vec<String>)> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(Error::new(format!("substitutions are nested deeper than {DEEPEST}")));
        }
        let (mut text, mut words) = (String::new(), Words::default());
        while let Some(c) = self.peek() {
            if Some(c) == stop {
                self.at += 1;
                self.depth -= 1;
                words.end();
                return Ok((text, words.done));
            }
            let raw = match c {
                '$' => {
                    let value = self.dollar(raw_escapes)?;
                    value.chars().for_each(|c| words.add(c));
                    text.push_str(&value);
                    continue;
                }
                '<' => self.angle(),
                '\'' if !self.lexer.ignore_quotes => self.single_quoted()?,
                '"' if !self.lexer.ignore_quotes => self.double_quoted(raw_escapes)?,
                c if c == self.lexer.escape => {
                    self.at += 1;
                    let sign = raw_escapes.then_some(c);
                    // An escape at the very end is dropped.
                    sign.into_iter().chain(self.next()).collect()
                }
                c => {
                    self.at += 1;
                    words.add(c);
                    text.push(c);
                    continue;
                }
            };
            words.current.push_str(&raw);
            text.push_str(&raw);
        }
        self.depth -= 1;
        words.end();
        match stop {
            None => Ok((text, words.done)),
            Some(stop) => Err(Error::new(format!(
                "unexpected end of statement while looking for matching {stop}"
            ))),
        }
    }

    /// `<<` and the blanks behind it stay together, so that a heredoc is one word.
    fn angle(&mut self) -> String {
        self.at += 1;
        if self.peek() != Some('<') {
            return "<".to_owned();
        }
        self.at += 1;
        let mut text = "<<".to_owned();
        while let Some(c) = self.peek().filter(|c| ['\t', '\r', ' '].contains(c)) {
            text.push(c);
            self.at += 1;
        }
        text
    }

    fn single_quoted(&mut self) -> Result<String> {
        let mut text = String::new();
        self.at += 1;
        loop {
            match self.next() {
                None => return Err(unmatched_quote("single")),
                Some('\'') => break,
                Some(c) => text.push(c),
            }
        }
        Ok(if self.lexer.raw_quotes { format!("'{text}'") } else { text })
    }

    fn double_quoted(&mut self, raw_escapes: bool) -> Result<String> {
        let mut text = String::new();
        self.at += 1;
        loop {
            match self.peek() {
                None => return Err(unmatched_quote("double")),
                Some('"') => break,
                Some('$') => text.push_str(&self.dollar(raw_escapes)?),
                Some(c) if c == self.lexer.escape => {
                    self.at += 1;
                    match self.peek() {
                        None => text.extend(raw_escapes.then_some(c)),
                        Some(next) if next == '"' || next == '$' || next == c => {
                            text.extend(raw_escapes.then_some(c));
                            text.push(next);
                            self.at += 1;
                        }
                        Some(_) => {
                            text.extend(std::iter::repeat_n(c, 1 + usize::from(raw_escapes)))
                        }
                    }
                }
                Some(c) => {
                    text.push(c);
                    self.at += 1;
                }
            }
        }
        self.at += 1;
        Ok(if self.lexer.raw_quotes { format!("\"{text}\"") } else { text })
    }

    fn dollar(&mut self, raw_escapes: bool) -> Result<String> {
        self.at += 1;
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.value(&name) {
                None if self.lexer.keep_unset => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        self.at += 1;
        match self.peek() {
            None => return Err(missing_brace()),
            Some('{' | '}' | ':') => return Err(bad_substitution()),
            _ => {}
        }
        let name = self.name();
        match self.next() {
            Some('}') => Ok(match self.value(&name) {
                None if self.lexer.keep_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            Some(':') => {
                let sign = self.next();
                match sign {
                    Some(c @ ('-' | '+' | '?')) => self.modified(&name, c, true, raw_escapes),
                    other => Err(unsupported(&format!(":{}", text_of(other)))),
                }
            }
            Some(c @ ('-' | '+' | '?')) => self.modified(&name, c, false, raw_escapes),
            Some(c @ ('#' | '%')) => self.trimmed(&name, c),
            Some('/') => self.replaced(&name),
            None => Err(missing_brace()),
            other => Err(unsupported(&text_of(other))),
        }
    }

    /// The rest of a `${…}`, up to the stop.
    fn rest(&mut self, stop: char, raw_escapes: bool) -> Result<String> {
        match self.until(Some(stop), raw_escapes) {
            Ok((text, _)) => Ok(text),
            Err(_) if self.peek().is_none() && self.depth <= DEEPEST => match stop {
                '}' => Err(missing_brace()),
                _ => Err(Error::new("syntax error: missing '/' in ${}")),
            },
            Err(e) => Err(e),
        }
    }

    fn modified(&mut self, name: &str, sign: char, empty_too: bool, _: bool) -> Result<String> {
        let word = self.rest('}', false)?;
        let value = self.value(name);
        if value.is_none() && self.lexer.keep_unset {
            let colon = if empty_too { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{sign}{word}}}"));
        }
        let usable = value.clone().filter(|v| !(empty_too && v.is_empty()));
        match (sign, usable) {
            ('-', Some(value)) | ('?', Some(value)) => Ok(value),
            ('-', None) => Ok(word),
            ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            (_, _) => {
                let state = if value.is_none() { "unset" } else { "empty" };
                let plain = format!("is not allowed to be {state}");
                let said = if word.is_empty() { plain } else { word };
                Err(Error::new(format!("{name}: {said}"))
                    .with_fix(format!("give it with --build-arg {name}=<value>")))
            }
        }
    }

    /// `#` and `%`: without the shortest part that fits; doubled, the longest.
    fn trimmed(&mut self, name: &str, sign: char) -> Result<String> {
        let word = self.rest('}', true)?;
        let Some(value) = self.value(name) else {
            return Ok(if self.lexer.keep_unset {
                format!("${{{name}{sign}{word}}}")
            } else {
                String::new()
            });
        };
        let (pattern, greedy) = match word.strip_prefix(sign) {
            Some(rest) => (rest, true),
            None => (word.as_str(), false),
        };
        let bad =
            |e: String| Error::new(format!("invalid pattern ({pattern}) in substitution: {e}"));
        let tokens = tokens(pattern).map_err(bad)?;
        // The shortest end is found as the shortest start of the reversed text.
        let backwards = |text: &str| text.chars().rev().collect::<String>();
        let (tokens, text) = match sign {
            '%' => (tokens.into_iter().rev().collect(), backwards(&value)),
            _ => (tokens, value),
        };
        let regex = pattern_regex(&tokens, greedy, true).map_err(bad)?;
        let end = regex.find(&text).map_or(0, |m| m.end());
        let rest = &text[end..];
        Ok(if sign == '%' { backwards(rest) } else { rest.to_owned() })
    }

    /// `${x/pattern/replacement}`; `//` replaces all.
    fn replaced(&mut self, name: &str) -> Result<String> {
        let all = self.peek() == Some('/');
        self.at += usize::from(all);
        let pattern = self.rest('/', true)?;
        let replacement = self.rest('}', true)?;
        let Some(value) = self.value(name) else {
            let sign = if all { "//" } else { "/" };
            let kept = format!("${{{name}{sign}{pattern}/{replacement}}}");
            return Ok(if self.lexer.keep_unset { kept } else { String::new() });
        };
        let bad =
            |e: String| Error::new(format!("invalid pattern ({pattern}) in substitution: {e}"));
        let tokens = tokens(&pattern).map_err(bad)?;
        let regex = pattern_regex(&tokens, true, false).map_err(bad)?;
        let with = regex::NoExpand(&replacement);
        Ok(match all {
            true => regex.replace_all(&value, with).into_owned(),
            false => regex.replace(&value, with).into_owned(),
        })
    }

    /// Letters, digits and `_`; digits alone when it begins with one; one of the shell's signs.
    fn name(&mut self) -> String {
        let start = self.at;
        let first = self.peek().unwrap_or(' ');
        if "@*#?-$!0".contains(first) && !first.is_ascii_digit() {
            self.at += 1;
            return first.to_string();
        }
        let fits = |c: char| match first.is_numeric() {
            true => c.is_numeric(),
            false => c.is_alphanumeric() || c == '_',
        };
        while self.peek().is_some_and(fits) {
            self.at += 1;
        }
        self.chars[start..self.at].iter().collect()
    }

    fn value(&mut self, name: &str) -> Option<String> {
        let value = self.variables.get(name);
        let list = if value.is_some() { &mut self.out.matched } else { &mut self.out.unmatched };
        list.insert(name.to_owned());
        value
    }
}

fn text_of(c: Option<char>) -> String {
    c.map(String::from).unwrap_or_default()
}

fn unsupported(sign: &str) -> Error {
    Error::new(format!("unsupported modifier ({sign}) in substitution"))
        .with_fix("use one of :- - :+ + :? ? # ## % %% / //")
}

fn missing_brace() -> Error {
    Error::new("syntax error: missing '}'").with_fix("close the ${ with a }")
}

fn unmatched_quote(kind: &str) -> Error {
    Error::new(format!("unexpected end of statement while looking for matching {kind}-quote"))
        .with_fix("close the quote, or escape it")
}

/// One place of a pattern, as a piece of a regular expression.
#[derive(Clone, Copy)]
enum Token {
    Star,
    Any,
    Letter(char),
}

fn tokens(pattern: &str) -> std::result::Result<Vec<Token>, String> {
    let mut out = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        out.push(match c {
            '*' => Token::Star,
            '?' => Token::Any,
            '\\' => match chars.next() {
                Some(c @ ('}' | '/' | '*' | '?' | '\\')) => Token::Letter(c),
                other => return Err(format!("invalid escape '\\{}'", text_of(other))),
            },
            c => Token::Letter(c),
        });
    }
    Ok(out)
}

fn pattern_regex(
    tokens: &[Token],
    greedy: bool,
    anchored: bool,
) -> std::result::Result<Regex, String> {
    let mut text = String::from(if anchored { "(?s)^" } else { "(?s)" });
    for token in tokens {
        match token {
            Token::Star if greedy => text.push_str(".*"),
            Token::Star => text.push_str(".*?"),
            Token::Any => text.push('.'),
            Token::Letter(c) => text.push_str(&regex::escape(&c.to_string())),
        }
    }
    Regex::new(&text).map_err(|e| e.to_string())
}
