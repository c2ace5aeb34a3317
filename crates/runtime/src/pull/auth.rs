//! How registries ask who one is, and what is answered.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::cri::AuthConfig;

/// What a `WWW-Authenticate` header demands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: String, scope: String },
}

/// Reads the header; unknown schemes are `None`.
pub(super) fn challenge(header: &str) -> Option<Challenge> {
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let value = |key: &str| {
        let at = rest.find(&format!("{key}=\""))? + key.len() + 2;
        rest[at..].split('"').next().map(str::to_owned)
    };
    Some(Challenge::Bearer {
        realm: value("realm")?,
        service: value("service").unwrap_or_default(),
        scope: value("scope").unwrap_or_default(),
    })
}

/// The `Basic` header for these credentials, if there are any.
pub(super) fn basic(auth: &AuthConfig) -> Option<String> {
    if !auth.auth.is_empty() {
        return Some(format!("Basic {}", auth.auth));
    }
    if auth.username.is_empty() {
        return None;
    }
    let pair = format!("{}:{}", auth.username, auth.password);
    Some(format!("Basic {}", STANDARD.encode(pair)))
}

/// A query parameter's value.
pub(super) fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().fold(String::new(), |out, b| {
        if plain(b) {
            out + std::str::from_utf8(&[b]).unwrap_or("")
        } else {
            format!("{out}%{b:02X}")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let header = r#"Bearer realm="https://a.example/token",service="r.example",scope="repository:x:pull,push""#;
        let Some(Challenge::Bearer { realm, service, scope }) = challenge(header) else { panic!() };
        assert_eq!((&*realm, &*service), ("https://a.example/token", "r.example"));
        assert_eq!(escape(&scope), "repository%3Ax%3Apull%2Cpush");
        assert_eq!(challenge("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(challenge("Negotiate"), None);
    }
}
