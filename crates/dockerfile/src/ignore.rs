//! Patterns of `.dockerignore` and `--exclude`.
//!
//! A pattern that fits a directory fits all below it; a later pattern overrules an earlier one, and one
//! with `!` takes files back in.

use regex::Regex;

use crate::error::{Error, Result};

/// Bytes of one pattern.
const LONGEST: usize = 4096;

#[derive(Clone, Debug, Default)]
pub struct Patterns(Vec<Pattern>);

#[derive(Clone, Debug)]
struct Pattern {
    includes: bool,
    /// The pattern without `!`.
    text: String,
    regex: Regex,
}

impl Patterns {
    /// The lines of a `.dockerignore`.
    pub fn read(text: &str) -> Result<Patterns> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut lines = Vec::new();
        for line in text.lines().filter(|l| !l.starts_with('#')) {
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            let (sign, rest) = match line.strip_prefix('!') {
                Some(rest) => ("!", rest.trim()),
                None => ("", line),
            };
            let rest = if rest.is_empty() { String::new() } else { clean(rest) };
            let rest = if rest.len() > 1 { rest.trim_start_matches('/') } else { &rest };
            lines.push(format!("{sign}{rest}"));
        }
        Patterns::new(&lines)
    }

    pub fn new(list: &[String]) -> Result<Patterns> {
        let mut out = Vec::new();
        for text in list {
            let text = text.trim();
            if text.is_empty() {
                continue;
            }
            let (includes, text) = match text.strip_prefix('!') {
                Some("") => {
                    return Err(Error::new("illegal exclusion pattern: \"!\"")
                        .with_fix("name a path behind the !"));
                }
                Some(rest) => (true, clean(rest)),
                None => (false, clean(text)),
            };
            let regex = regex(&text).ok_or_else(|| {
                Error::new(format!("syntax error in pattern {text:?}"))
                    .with_fix("close the [ or escape it")
            })?;
            out.push(Pattern { includes, text, regex });
        }
        Ok(Patterns(out))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a path (relative, with `/`) is left out.
    pub fn excludes(&self, path: &str) -> bool {
        let mut excluded = false;
        for pattern in &self.0 {
            // Only a pattern that can change the answer is asked.
            if pattern.includes == excluded && pattern.fits_or_above(path) {
                excluded = !pattern.includes;
            }
        }
        excluded
    }

    /// Whether nothing below an excluded directory can be taken back in.
    pub fn excludes_all_below(&self, dir: &str) -> bool {
        let below = format!("{dir}/");
        let reaches = |p: &Pattern| {
            let fixed: String = p.text.chars().take_while(|c| !"*?[\\".contains(*c)).collect();
            p.text.starts_with(&below) || below.starts_with(&fixed)
        };
        self.excludes(dir) && !self.0.iter().any(|p| p.includes && reaches(p))
    }
}

impl Pattern {
    fn fits_or_above(&self, path: &str) -> bool {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        ends.into_iter().any(|end| self.regex.is_match(&path[..end]))
    }
}

/// A path without `.`, `..` and double slashes, as Go's `filepath.Clean` has it.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|p| *p != "..") => drop(parts.pop()),
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

/// `*` and `?` stay within a name, `**` does not, `[…]` is a set, a backslash escapes.
fn regex(pattern: &str) -> Option<Regex> {
    if pattern.len() > LONGEST {
        return None;
    }
    let mut text = String::from("^");
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                // At the end: everything below.
                text.push_str(if chars.peek().is_none() { ".*" } else { "(.*/)?" });
            }
            '*' => text.push_str("[^/]*"),
            '?' => text.push_str("[^/]"),
            '\\' => text.push_str(&regex::escape(&chars.next()?.to_string())),
            '[' => text.push_str(&set(&mut chars)?),
            c => text.push_str(&regex::escape(&c.to_string())),
        }
    }
    text.push('$');
    Regex::new(&text).ok()
}

/// A set of letters, e.g. `[a-z]` or `[^x]`.
fn set(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    let mut text = String::from("[");
    if chars.next_if_eq(&'^').is_some() {
        text.push('^');
    }
    let mut length = 0;
    loop {
        match chars.next()? {
            ']' if length > 0 => break,
            '-' => text.push('-'),
            '\\' => text.push_str(&regex::escape(&chars.next()?.to_string())),
            c if "[]&~^".contains(c) => text.extend(['\\', c]),
            c => text.push(c),
        }
        length += 1;
    }
    text.push(']');
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excluded(patterns: &[&str], path: &str) -> bool {
        let list: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
        Patterns::new(&list).unwrap().excludes(path)
    }

    #[test]
    fn patterns_fit_as_in_moby() {
        for (pattern, path, want) in [
            ("**", "file", true),
            ("**", "dir/file", true),
            ("**/", "dir/file", true),
            ("**/**", "dir/file", true),
            ("dir/**", "dir/file", true),
            ("dir/**", "dir/dir2/file", true),
            ("dir/**", "dirx", false),
            ("**/dir2/*", "dir/dir2/file", true),
            ("**/dir2/**", "dir/dir2/dir2/file.txt", true),
            ("**file", "dir/file", true),
            ("**/file", "dir/dir/file", true),
            ("**/file*", "dir/dir/file.txt", true),
            ("**/file*txt", "dir/dir/file.txt", true),
            ("**/**/*.txt", "dir/dir/file.txt", true),
            ("**/**/*.txt2", "dir/dir/file.txt", false),
            ("**/*.txt", "file.txt", true),
            ("a**/*.txt", "a/file.txt", true),
            ("a**/*.txt", "a/dir/dir/file.txt", true),
            ("a[b-d]e", "ace", true),
            ("a[b-d]e", "aae", false),
            ("a[^b-d]e", "aze", true),
            (".*", ".foo", true),
            (".*", "foo", false),
            ("abc.def", "abcdef", false),
            ("abc.def", "abczdef", false),
            ("abc?def", "abczdef", true),
            ("a\\\\", "a\\", true),
            ("a\\b", "ab", true),
            ("**/foo/bar", "foo/bar", true),
            ("**/foo/bar", "dir/foo/bar", true),
            ("abc/**", "abc", false),
            ("abc/**", "abc/def/ghi", true),
            ("a(b)c/def", "a(b)c/def", true),
            ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
            ("docs", "docs/a/b", true),
            ("./docs//x/..", "docs/a", true),
        ] {
            assert_eq!(excluded(&[pattern], path), want, "{pattern} {path}");
        }
    }

    #[test]
    fn the_last_pattern_that_fits_wins() {
        let list = ["docs", "!docs/README.md", "*.tmp", "!keep.tmp"];
        assert!(excluded(&list, "docs/a.md"));
        assert!(!excluded(&list, "docs/README.md"));
        assert!(excluded(&list, "x.tmp"));
        assert!(!excluded(&list, "keep.tmp"));
        assert!(excluded(&["!docs", "docs"], "docs"));
    }

    #[test]
    fn a_directory_is_skipped_when_nothing_in_it_comes_back() {
        let patterns = Patterns::read("a\nb\n!b/c\nd\n!**/x\n").unwrap();
        assert!(!Patterns::read("b\n!b/c").unwrap().excludes_all_below("b"));
        assert!(Patterns::read("b\nd\n!d/c").unwrap().excludes_all_below("b"));
        assert!(!patterns.excludes_all_below("a"), "**/x may be anywhere");
    }

    #[test]
    fn files_are_read_line_by_line() {
        let text = "\u{feff}# comment\n\n  /abs \n! in \n #not\n./a/../b\n";
        let patterns = Patterns::read(text).unwrap();
        let texts: Vec<_> = patterns.0.iter().map(|p| (p.includes, p.text.as_str())).collect();
        assert_eq!(texts, [(false, "abs"), (true, "in"), (false, "#not"), (false, "b")]);
        for bad in ["!", "a[", "a\\"] {
            assert!(Patterns::read(bad).is_err(), "{bad}");
        }
    }
}
