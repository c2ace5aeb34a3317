//! The names of images, read as the API's other components read them (the `distribution` references).
//!
//! A name that cannot be read is never pulled. Only what the kubelet itself needs is kept: the
//! repository, for credentials, and whether a tag is to be added.

use std::sync::LazyLock;

use regex::Regex;

const TAG_DEFAULT: &str = "latest";
/// Longest path of a repository.
const PATH_MAX: usize = 255;
const HUB: &str = "docker.io";
const HUB_LEGACY: &str = "index.docker.io";
const HUB_PREFIX: &str = "library/";

/// The grammar: a registry with an optional port, a path of lower-case words, a tag, a digest.
struct Grammar {
    whole: Regex,
    domain: Regex,
}

static GRAMMAR: LazyLock<Option<Grammar>> = LazyLock::new(|| {
    let label = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
    let domain = format!(r"(?:{label}(?:\.{label})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?");
    let word = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*";
    let path = format!("{word}(?:/{word})*");
    let tag = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}";
    let digest = "[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}";
    let whole = format!("^((?:{domain}/)?{path})(?::({tag}))?(?:@({digest}))?$");
    let domain = format!("^(?:{domain})/({path})$");
    Some(Grammar { whole: Regex::new(&whole).ok()?, domain: Regex::new(&domain).ok()? })
});

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    /// With its registry, and `library/` where the Hub has it.
    pub(super) repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Name {
    /// Reads a name; the error is the sentence that clients see.
    pub(super) fn parse(text: &str) -> Result<Name, String> {
        let fail = |why: String| format!("couldn't parse image name {text:?}: {why}");
        Name::read(text).map_err(fail)
    }

    fn read(text: &str) -> Result<Name, String> {
        if text.len() == 64 && text.bytes().all(is_lower_hex) {
            return Err(format!(
                "invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
            ));
        }
        let (domain, rest) = split_domain(text);
        let remote = rest.split(':').next().unwrap_or_default();
        if remote.to_lowercase() != remote {
            return Err(format!(
                "invalid reference format: repository name ({remote}) must be lowercase"
            ));
        }
        let full = format!("{domain}/{rest}");
        let grammar = GRAMMAR.as_ref().ok_or("the grammar of image names is damaged")?;
        let Some(found) = grammar.whole.captures(&full) else {
            let lower = grammar.whole.is_match(&full.to_lowercase());
            let why = if lower {
                "repository name must be lowercase"
            } else {
                "invalid reference format"
            };
            return Err(why.into());
        };
        let group = |n: usize| found.get(n).map(|m| m.as_str().to_owned());
        let repository = group(1).unwrap_or_default();
        let path = grammar.domain.captures(&repository).and_then(|c| c.get(1));
        if path.map_or(repository.len(), |p| p.len()) > PATH_MAX {
            return Err(format!("repository name must not be more than {PATH_MAX} characters"));
        }
        let digest = group(3);
        digest.as_deref().map_or(Ok(()), check_digest)?;
        Ok(Name { repository, tag: group(2), digest })
    }

    /// With registry, and with the digest or the tag.
    pub(super) fn full(&self) -> String {
        match (&self.tag, &self.digest) {
            (_, Some(digest)) => format!("{}@{digest}", self.repository),
            (tag, None) => format!("{}:{}", self.repository, tag.as_deref().unwrap_or(TAG_DEFAULT)),
        }
    }

    /// What the runtime is asked for: `text` itself, with the default tag if it names nothing exact.
    pub(super) fn with_tag(&self, text: &str) -> String {
        match (&self.tag, &self.digest) {
            (None, None) => format!("{text}:{TAG_DEFAULT}"),
            _ => text.to_owned(),
        }
    }
}

fn is_lower_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

fn check_digest(digest: &str) -> Result<(), String> {
    let (algorithm, hex) = digest.split_once(':').unwrap_or_default();
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err("unsupported digest algorithm".into()),
    };
    if hex.len() != length {
        return Err("invalid checksum digest length".into());
    }
    match hex.bytes().all(is_lower_hex) {
        true => Ok(()),
        false => Err("invalid checksum digest format".into()),
    }
}

/// The registry and the rest; the first component is a registry only if it looks like one.
fn split_domain(name: &str) -> (&str, String) {
    let Some((first, rest)) = name.split_once('/') else {
        return (HUB, format!("{HUB_PREFIX}{name}"));
    };
    let is_domain =
        first == "localhost" || first.contains(['.', ':']) || first.to_lowercase() != first;
    let (domain, rest) = match first {
        HUB_LEGACY => (HUB, rest),
        _ if is_domain => (first, rest),
        _ => (HUB, name),
    };
    match domain == HUB && !rest.contains('/') {
        true => (domain, format!("{HUB_PREFIX}{rest}")),
        false => (domain, rest.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_the_tag_that_they_lack() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, repository, asked) in [
            ("busybox", "docker.io/library/busybox", "busybox:latest"),
            ("a/b:1", "docker.io/a/b", "a/b:1"),
            ("index.docker.io/nginx", "docker.io/library/nginx", "index.docker.io/nginx:latest"),
            ("localhost/x", "localhost/x", "localhost/x:latest"),
            ("Reg.example:5000/x/y", "Reg.example:5000/x/y", "Reg.example:5000/x/y:latest"),
            ("[::1]:5000/x:Tag_1.2", "[::1]:5000/x", "[::1]:5000/x:Tag_1.2"),
            ("my_host.com/foo", "my_host.com/foo", "my_host.com/foo:latest"),
            (&format!("x@{digest}"), "docker.io/library/x", &format!("x@{digest}")),
        ] {
            let name = Name::parse(text).unwrap();
            assert_eq!((&*name.repository, &*name.with_tag(text)), (repository, asked));
        }
    }

    #[test]
    fn what_is_no_name_says_why() {
        let hex = "a".repeat(64);
        let long = format!("r.example/{}", "a".repeat(256));
        for (text, why) in [
            ("", "invalid reference format"),
            (
                "Nginx",
                "invalid reference format: repository name (library/Nginx) must be lowercase",
            ),
            ("a/B/c:1", "invalid reference format: repository name (a/B/c) must be lowercase"),
            ("nginx:${TAG}", "invalid reference format"),
            ("https://r.example/x", "invalid reference format"),
            ("nginx:", "invalid reference format"),
            ("a b", "invalid reference format"),
            ("a//b", "invalid reference format"),
            ("a__b___c", "invalid reference format"),
            ("-a/b", "invalid reference format"),
            (&long, "repository name must not be more than 255 characters"),
            (
                &hex,
                &*format!(
                    "invalid repository name ({hex}), cannot specify 64-byte hexadecimal strings"
                ),
            ),
            (&format!("x@md5:{}", "a".repeat(32)), "unsupported digest algorithm"),
            (&format!("x@sha256:{}", "a".repeat(40)), "invalid checksum digest length"),
            (&format!("x@sha256:{}", "A".repeat(64)), "invalid checksum digest format"),
        ] {
            let said = Name::parse(text).unwrap_err();
            assert_eq!(said, format!("couldn't parse image name {text:?}: {why}"));
        }
    }
}
