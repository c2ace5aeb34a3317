//! Image names, as Docker reads them: `[host[:port]/]path[:tag][@digest]`.

use crate::error::{Error, Result};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The registry, e.g. `docker.io`.
    pub host: String,
    /// The repository in it, e.g. `library/busybox`.
    pub path: String,
    pub tag: Option<String>,
    /// `sha256:…`.
    pub digest: Option<String>,
}

impl Reference {
    /// Fills in what is left out: Docker Hub, its `library/`, and the tag `latest` when there is no digest.
    pub fn parse(text: &str) -> Result<Reference> {
        let bad = |why: &str| Error::Invalid(format!("invalid reference format: {text:?}: {why}"));
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.to_owned())),
            None => (text, None),
        };
        if digest.as_deref().is_some_and(|d| !is_digest(d)) {
            return Err(bad("the digest is not sha256"));
        }
        let slash = name.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match name[slash..].find(':') {
            Some(at) => (&name[..slash + at], Some(name[slash + at + 1..].to_owned())),
            None => (name, None),
        };
        let word = |t: &String| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
            !t.is_empty() && t.len() <= 128 && t.chars().all(plain) && !t.starts_with(['.', '-'])
        };
        if tag.as_ref().is_some_and(|t| !word(t)) {
            return Err(bad("the tag"));
        }
        let (host, path) = split_host(name);
        let component = |c: &str| {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
            !c.is_empty() && c.chars().all(plain) && !c.starts_with(['.', '_', '-'])
        };
        let host_start = host.chars().next().is_some_and(|c| c.is_ascii_alphanumeric() || c == '[');
        if !host_start || host.contains(char::is_whitespace) {
            return Err(bad("the registry's name"));
        }
        if !path.split('/').all(component) || path.len() > 255 {
            return Err(bad("repository name must be lowercase"));
        }
        let tag = if tag.is_none() && digest.is_none() { Some("latest".to_owned()) } else { tag };
        Ok(Reference { host, path, tag, digest })
    }

    pub fn repository(&self) -> String {
        format!("{}/{}", self.host, self.path)
    }

    /// The name an image is kept under: with its tag, or with its digest when it has no tag.
    pub fn name(&self) -> String {
        match (&self.tag, &self.digest) {
            (_, Some(digest)) => format!("{}@{digest}", self.repository()),
            (Some(tag), None) => format!("{}:{tag}", self.repository()),
            (None, None) => self.repository(),
        }
    }
}

pub(crate) fn is_digest(text: &str) -> bool {
    let hex = |h: &str| h.len() == 64 && h.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    text.strip_prefix("sha256:").is_some_and(hex)
}

/// The first component is a host only if it looks like one.
fn split_host(name: &str) -> (String, String) {
    match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
            let host = if first == "index.docker.io" { "docker.io" } else { first };
            let single = host == "docker.io" && !rest.contains('/');
            (host.to_owned(), if single { format!("library/{rest}") } else { rest.to_owned() })
        }
        Some(_) => ("docker.io".to_owned(), name.to_owned()),
        None => ("docker.io".to_owned(), format!("library/{name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_in_as_docker_does() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, want) in [
            ("busybox", "docker.io/library/busybox:latest".to_owned()),
            ("user/app:1.2", "docker.io/user/app:1.2".to_owned()),
            ("localhost/app", "localhost/app:latest".to_owned()),
            ("reg.example:5000/a/b/c:x", "reg.example:5000/a/b/c:x".to_owned()),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest".to_owned()),
            (&format!("app:v1@{digest}"), format!("docker.io/library/app@{digest}")),
        ] {
            assert_eq!(Reference::parse(text).unwrap().name(), want);
        }
        for bad in ["", "UPPER/case", "a b", "app:", "app@sha256:12", "../x", "a//b"] {
            assert!(Reference::parse(bad).is_err(), "{bad:?}");
        }
    }
}
