//! A file's bytes into instructions: directives, comments, continued lines, heredocs.

use std::sync::LazyLock;

use regex::Regex;

use crate::error::{Error, Result};
use crate::expand::{Lexer, NoVariables};
use crate::node::{Arguments, Heredoc, Node};
use crate::words;

/// Bytes of a line, as upstream.
const LONGEST_LINE: usize = 65_535;
/// Bytes of a file: a larger one is no Dockerfile.
const LONGEST_FILE: usize = 16 << 20;

/// Something that works today and will not for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub line: usize,
    pub message: String,
}

/// A file's instructions.
#[derive(Clone, Debug)]
pub struct Nodes {
    pub nodes: Vec<Node>,
    pub escape: char,
    /// The `syntax` and `check` directives.
    pub directives: Vec<(String, String)>,
    pub warnings: Vec<Warning>,
}

struct Reader<'a> {
    lines: Vec<&'a str>,
    /// The next line's index; as a number of lines read it is the last line's number.
    next: usize,
    escape: char,
    /// Whether a directive may still come.
    directives_open: bool,
    directives: Vec<(String, String)>,
}

/// Reads a whole file.
pub fn nodes(bytes: &[u8]) -> Result<Nodes> {
    if bytes.len() > LONGEST_FILE {
        return Err(Error::new(format!("the file has more than {LONGEST_FILE} bytes")));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = String::from_utf8_lossy(bytes);
    let mut reader = Reader {
        lines: text.split_inclusive('\n').collect(),
        next: 0,
        escape: '\\',
        directives_open: true,
        directives: Vec::new(),
    };
    let mut out = Vec::new();
    let mut warnings = Vec::new();
    let mut comments = Vec::new();
    while let Some(line) = reader.line()? {
        let start = reader.next;
        let body = line.trim_end_matches(['\r', '\n']);
        let body = body.trim_start();
        let is_directive = reader.directive(body).map_err(|e| e.at_line(start))?;
        if let Some(comment) = body.strip_prefix('#') {
            match comment.trim() {
                _ if is_directive => {}
                "" => comments.clear(),
                comment => comments.push(comment.to_owned()),
            }
            continue;
        }
        let mut joined = String::new();
        let mut ended = reader.append(&mut joined, body);
        if ended && joined.is_empty() {
            continue;
        }
        let mut has_empty_line = false;
        while !ended && let Some(line) = reader.line()? {
            let body = line.trim_end_matches(['\r', '\n']);
            match body.trim_start() {
                "" => has_empty_line = true,
                comment if comment.starts_with('#') => {}
                _ => ended = reader.append(&mut joined, body),
            }
        }
        if has_empty_line {
            let message = format!("Empty continuation line found in: {joined}");
            warnings.push(Warning { line: reader.next, message });
        }
        let mut node = node(&joined, reader.escape).map_err(|e| e.at_line(start))?;
        node.comments = std::mem::take(&mut comments);
        if node.may_have_heredocs() && joined.contains("<<") {
            node.heredocs = reader.heredocs(&joined).map_err(|e| e.at_line(start))?;
        }
        node.lines = (start, reader.next);
        out.push(node);
    }
    if out.is_empty() {
        return Err(Error::new("file with no instructions").with_fix("begin with FROM <image>"));
    }
    Ok(Nodes { nodes: out, escape: reader.escape, directives: reader.directives, warnings })
}

impl<'a> Reader<'a> {
    fn line(&mut self) -> Result<Option<&'a str>> {
        let Some(line) = self.lines.get(self.next) else { return Ok(None) };
        self.next += 1;
        if line.len() > LONGEST_LINE {
            let text = format!("dockerfile line greater than max allowed size of {LONGEST_LINE}");
            return Err(Error::new(text).at_line(self.next));
        }
        Ok(Some(line))
    }

    /// Whether this line is a directive; the first line that is none ends them.
    fn directive(&mut self, line: &str) -> Result<bool> {
        static FORM: LazyLock<Regex> = LazyLock::new(|| {
            Regex::new(r"^#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$").expect("a constant")
        });
        if !self.directives_open {
            return Ok(false);
        }
        // A first line `#!` makes the file a program; directives follow it.
        if self.next == 1 && line.starts_with("#!") {
            return Ok(true);
        }
        let found = FORM.captures(line).map(|c| (c[1].to_lowercase(), c[2].to_owned()));
        let known = |name: &str| ["syntax", "escape", "check"].contains(&name);
        let Some((name, value)) = found.filter(|(name, _)| known(name)) else {
            self.directives_open = false;
            return Ok(false);
        };
        if self.directives.iter().any(|(n, _)| *n == name) {
            return Err(Error::new(format!("only one {name} parser directive can be used"))
                .with_fix("remove the second one"));
        }
        if name == "escape" {
            self.escape = match value.as_str() {
                "\\" => '\\',
                "`" => '`',
                _ => {
                    let text = format!("invalid escape token '{value}' does not match ` or \\");
                    return Err(Error::new(text).with_fix("write # escape=` or # escape=\\"));
                }
            };
        }
        self.directives.push((name, value));
        Ok(true)
    }

    /// Adds a line without its continuation sign; whether the instruction ends with it.
    fn append(&self, to: &mut String, line: &str) -> bool {
        let end = line.trim_end_matches([' ', '\t']);
        match end.strip_suffix(self.escape) {
            // An escaped escape sign continues nothing.
            Some(rest) if !rest.ends_with(self.escape) => {
                to.push_str(rest);
                false
            }
            _ => {
                to.push_str(line);
                true
            }
        }
    }

    /// The texts behind an instruction that has `<<`.
    fn heredocs(&mut self, line: &str) -> Result<Vec<Heredoc>> {
        let lexer =
            Lexer { raw_quotes: true, raw_escapes: true, keep_unset: true, ..Lexer::new('\\') };
        // A line with a lone quote is the shell's: no heredocs are seen in it.
        let words = lexer.words(line, &NoVariables).unwrap_or_default();
        let mut found = Vec::new();
        for word in words {
            let Some(mut heredoc) = heredoc(&word)? else { continue };
            loop {
                let Some(line) = self.lines.get(self.next) else {
                    let name = &heredoc.name;
                    return Err(Error::new("unterminated heredoc")
                        .with_fix(format!("end it with a line that is {name} alone")));
                };
                self.next += 1;
                let end = line.trim_end_matches(['\r', '\n']);
                let end = if heredoc.chomp { end.trim_start_matches('\t') } else { end };
                if end == heredoc.name {
                    break;
                }
                heredoc.content.push_str(line);
            }
            found.push(heredoc);
        }
        Ok(found)
    }
}

/// The heredoc that a word announces, e.g. `<<EOF`, `3<<-'END'`.
pub(crate) fn heredoc(word: &str) -> Result<Option<Heredoc>> {
    static FORM: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^(\d*)<<(-?)\s*([^<]*)$").expect("a constant"));
    let Some(found) = FORM.captures(word) else { return Ok(None) };
    let rest = &found[3];
    if rest.is_empty() {
        return Ok(None);
    }
    let plain = Lexer { keep_unset: true, ..Lexer::new('\\') };
    let names = plain.words(rest, &NoVariables)?;
    let [name] = names.as_slice() else { return Ok(None) };
    let raw = Lexer { raw_quotes: true, ..plain }.words(rest, &NoVariables)?;
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    let expand = raw.first().is_some_and(|raw| quotes(raw) == quotes(name));
    Ok(Some(Heredoc {
        name: name.clone(),
        file_descriptor: found[1].parse().unwrap_or(0),
        expand,
        chomp: &found[2] == "-",
        content: String::new(),
    }))
}

/// One joined line.
pub(crate) fn node(line: &str, escape: char) -> Result<Node> {
    let (keyword, flags, rest) = words::command(line, escape);
    let lower = keyword.to_lowercase();
    let list = |words: Vec<String>, json| Arguments::Words { words, json };
    let whole = |text: &str| if text.is_empty() { Vec::new() } else { vec![text.to_owned()] };
    let split = |text: &str| match text {
        "" => Vec::new(),
        text => words::at_blanks(text, usize::MAX).into_iter().map(str::to_owned).collect(),
    };
    let arguments = match lower.as_str() {
        "env" | "label" => words::pairs(&rest, &lower.to_uppercase(), escape)?,
        "arg" => list(words::quoted_words(&rest, escape), false),
        "add" | "copy" | "volume" => match words::json(&rest)? {
            Some(words) => list(words, true),
            None => list(split(&rest), false),
        },
        "cmd" | "entrypoint" | "run" | "shell" => match words::json(&rest)? {
            Some(words) => list(words, true),
            None => list(whole(&rest), false),
        },
        "expose" | "from" => list(split(&rest), false),
        "healthcheck" => {
            let kind = rest.split(char::is_whitespace).next().unwrap_or("");
            let command = rest[kind.len()..].trim_start();
            let (command, json) = match words::json(command)? {
                Some(words) => (words, true),
                None => (whole(command), false),
            };
            let kind = whole(kind);
            list(kind.into_iter().chain(command).collect(), json)
        }
        "onbuild" if !rest.is_empty() => {
            // `ONBUILD ONBUILD …` is refused by its meaning; only the first is looked into.
            let inner = words::at_blanks(&rest, 2)[0];
            if inner.eq_ignore_ascii_case("onbuild") {
                list(vec![rest.clone()], false)
            } else {
                Arguments::Instruction(Box::new(node(&rest, escape)?))
            }
        }
        "maintainer" | "stopsignal" | "user" | "workdir" => list(whole(&rest), false),
        _ => list(Vec::new(), false),
    };
    let original = line.to_owned();
    let (heredocs, comments) = (Vec::new(), Vec::new());
    Ok(Node { keyword, flags, arguments, heredocs, original, lines: (0, 0), comments })
}
