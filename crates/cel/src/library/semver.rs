//! Semantic versions, as `blang/semver` reads them.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use super::{Answer, Function};
use crate::error::Error;
use crate::value::Value;

/// A version; the build's name does not count in comparisons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Semver {
    numbers: [u64; 3],
    pre: Vec<Box<str>>,
    build: Box<str>,
}

pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "semver" => |args| {
            let version = parsed(args)?;
            Some(version.map(|v| Value::Semver(Arc::new(v))).map_err(Error::new))
        },
        "isSemver" => |args| Some(Ok(Value::Bool(parsed(args)?.is_ok()))),
        "major" => |args| number(args, 0),
        "minor" => |args| number(args, 1),
        "patch" => |args| number(args, 2),
        _ => return None,
    })
}

fn parsed(args: &[Value<'_>]) -> Option<Result<Semver, String>> {
    match args {
        [Value::String(text)] | [Value::String(text), Value::Bool(false)] => Some(parse(text)),
        [Value::String(text), Value::Bool(true)] => Some(normalized(text).and_then(|t| parse(&t))),
        _ => None,
    }
}

fn number<'v>(args: &[Value<'v>], at: usize) -> Answer<'v> {
    match args {
        [Value::Semver(version)] => Some(Ok(Value::Int(version.numbers[at] as i64))),
        _ => None,
    }
}

/// Without `v` and leading zeros, and with all three numbers.
fn normalized(text: &str) -> Result<String, String> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts: Vec<String> = text.splitn(3, '.').map(without_zeros).collect();
    if parts.len() < 3 && parts.last().is_some_and(|last| last.contains(['+', '-'])) {
        return Err("short version cannot contain PreRelease/Build meta data".to_owned());
    }
    parts.resize(3, "0".to_owned());
    Ok(parts.join("."))
}

fn without_zeros(part: &str) -> String {
    if part.len() < 2 {
        return part.to_owned();
    }
    let rest = part.trim_start_matches('0');
    let zero = if rest.starts_with(|c: char| c.is_ascii_digit()) { "" } else { "0" };
    format!("{zero}{rest}")
}

pub(crate) fn parse(text: &str) -> Result<Semver, String> {
    if text.is_empty() {
        return Err("Version string empty".to_owned());
    }
    let parts: Vec<&str> = text.splitn(3, '.').collect();
    let [major, minor, rest] = parts[..] else {
        return Err("No Major.Minor.Patch elements found".to_owned());
    };
    let (rest, build) = rest.split_once('+').map_or((rest, None), |(r, b)| (r, Some(b)));
    let (patch, pre) = rest.split_once('-').map_or((rest, None), |(p, r)| (p, Some(r)));
    let numbers = [named("Major", major)?, named("Minor", minor)?, named("Patch", patch)?];
    let pre = pre.map_or(Ok(Vec::new()), |pre| pre.split('.').map(pre_release).collect())?;
    for part in build.into_iter().flat_map(|build| build.split('.')) {
        if part.is_empty() {
            return Err("Build meta data is empty".to_owned());
        }
        if !is_word(part) {
            return Err(format!("Invalid character(s) found in build meta data {part:?}"));
        }
    }
    Ok(Semver { numbers, pre, build: build.unwrap_or("").into() })
}

fn is_word(part: &str) -> bool {
    part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn named(name: &str, digits: &str) -> Result<u64, String> {
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        let name = name.to_lowercase();
        return Err(format!("Invalid character(s) found in {name} number {digits:?}"));
    }
    if digits.len() > 1 && digits.starts_with('0') {
        return Err(format!("{name} number must not contain leading zeroes {digits:?}"));
    }
    digits.parse().map_err(|_| format!("strconv.ParseUint: parsing {digits:?}: invalid syntax"))
}

fn pre_release(part: &str) -> Result<Box<str>, String> {
    if part.is_empty() {
        return Err("Prerelease is empty".to_owned());
    }
    let numeric = part.bytes().all(|b| b.is_ascii_digit());
    if numeric && part.len() > 1 && part.starts_with('0') {
        return Err(format!("Numeric PreRelease version must not contain leading zeroes {part:?}"));
    }
    match is_word(part) {
        true => Ok(part.into()),
        false => Err(format!("Invalid character(s) found in prerelease {part:?}")),
    }
}

impl Semver {
    /// Numbers first; a pre-release comes before its release.
    pub(crate) fn order(&self, other: &Semver) -> Ordering {
        let pre = match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => {
                let parts = self.pre.iter().zip(&other.pre).map(|(a, b)| part_order(a, b));
                let first = parts.into_iter().find(|order| order.is_ne());
                first.unwrap_or(self.pre.len().cmp(&other.pre.len()))
            }
        };
        self.numbers.cmp(&other.numbers).then(pre)
    }
}

/// Numbers come before words.
fn part_order(a: &str, b: &str) -> Ordering {
    match (a.parse::<u64>(), b.parse::<u64>()) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        (Ok(_), Err(_)) => Ordering::Less,
        (Err(_), Ok(_)) => Ordering::Greater,
        (Err(_), Err(_)) => a.cmp(b),
    }
}

impl fmt::Display for Semver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(f, "{major}.{minor}.{patch}")?;
        if !self.pre.is_empty() {
            write!(f, "-{}", self.pre.join("."))?;
        }
        if self.build.is_empty() { Ok(()) } else { write!(f, "+{}", self.build) }
    }
}
