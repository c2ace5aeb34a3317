//! Logins for registries: which of those that are known fit an image's repository, and in which order.
//!
//! A login is for a registry or for a path in it; parts of the host's name may be patterns. All that fit
//! are tried, the most specific first, so that several teams can share a registry and logins can be
//! changed while old ones are still about.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use k8s_openapi::api::core::v1::Secret;
use runtime::cri::AuthConfig;
use serde::Deserialize;

/// Where the Hub's logins are kept, though its images are named otherwise.
const HUB: &str = "index.docker.io";
const TYPE_JSON: &str = "kubernetes.io/dockerconfigjson";
const TYPE_CFG: &str = "kubernetes.io/dockercfg";
const KEY_JSON: &str = ".dockerconfigjson";
const KEY_CFG: &str = ".dockercfg";

/// A file of logins by registry.
type Logins = BTreeMap<String, Entry>;

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    auths: Logins,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
}

impl Entry {
    /// `auth`, when it is there, is user and password in one.
    fn login(self, server: &str) -> Result<AuthConfig, String> {
        let (mut username, mut password) = (self.username, self.password);
        if !self.auth.is_empty() {
            let engine = if self.auth.trim().ends_with('=') { STANDARD } else { STANDARD_NO_PAD };
            let bytes = engine.decode(&self.auth).map_err(|e| e.to_string())?;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let (user, pass) = text.split_once(':').ok_or(
                "unable to parse auth field, must be formatted as base64(username:password)",
            )?;
            (username, password) = (user.to_owned(), pass.to_owned());
        }
        Ok(AuthConfig {
            username,
            password,
            server_address: server.to_owned(),
            identity_token: self.identitytoken,
            ..AuthConfig::default()
        })
    }
}

/// The source of a login.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Origin {
    #[default]
    Secret,
    /// A credential provider that was asked for the account.
    ServiceAccount,
}

/// The Secret, or the account, that a login is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) uid: String,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) origin: Origin,
}

/// A login, and where it is from; the node's own are from nowhere.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Login {
    pub(super) auth: AuthConfig,
    pub(super) source: Option<Source>,
}

/// Logins by the place that they are for.
#[derive(Default)]
pub(super) struct Keyring {
    logins: BTreeMap<String, Vec<Login>>,
}

impl Keyring {
    /// The pull secrets of a pod; one of another type has no logins.
    pub(super) fn of<'a>(secrets: impl Iterator<Item = &'a Secret>) -> Result<Keyring, String> {
        let mut keyring = Keyring::default();
        for secret in secrets {
            let key = match secret.type_.as_deref() {
                Some(TYPE_JSON) => KEY_JSON,
                Some(TYPE_CFG) => KEY_CFG,
                _ => continue,
            };
            let content = secret.data.as_ref().and_then(|data| data.get(key));
            if let Some(content) = content.filter(|c| !c.0.is_empty()) {
                let meta = &secret.metadata;
                let source = Source {
                    uid: meta.uid.clone().unwrap_or_default(),
                    namespace: meta.namespace.clone().unwrap_or_default(),
                    name: meta.name.clone().unwrap_or_default(),
                    origin: Origin::Secret,
                };
                keyring.read(&content.0, key == KEY_CFG, Some(source))?;
            }
        }
        Ok(keyring)
    }

    /// Adds a file's logins; the older form has no `auths`.
    pub(super) fn read(
        &mut self,
        content: &[u8],
        old: bool,
        source: Option<Source>,
    ) -> Result<(), String> {
        let parsed = match old {
            true => serde_json::from_slice(content),
            false => serde_json::from_slice::<Document>(content).map(|d| d.auths),
        };
        for (server, entry) in parsed.map_err(|e| e.to_string())? {
            let login = Login { auth: entry.login(&server)?, source: source.clone() };
            self.insert(&server, login);
        }
        Ok(())
    }

    /// Adds one login for a registry, or a part of it.
    pub(super) fn insert(&mut self, server: &str, login: Login) {
        self.logins.entry(place(server)).or_default().push(login);
    }

    /// All that fit, the most specific first.
    pub(super) fn lookup(&self, repository: &str) -> Vec<Login> {
        let fitting = self.logins.iter().rev().filter(|(place, _)| fits(place, repository));
        let found: Vec<_> = fitting.flat_map(|(_, logins)| logins.clone()).collect();
        if found.is_empty() && is_on_hub(repository) {
            return self.logins.get(HUB).cloned().unwrap_or_default();
        }
        found
    }
}

/// Host and path of an entry's key, which may be a URL of the registry's API.
fn place(server: &str) -> String {
    let bare = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://"));
    let bare = bare.unwrap_or(server);
    let bare = bare.split(['?', '#']).next().unwrap_or_default();
    let (host, path) = match bare.find('/') {
        Some(at) => bare.split_at(at),
        None => (bare, ""),
    };
    let host = host.rsplit('@').next().unwrap_or_default();
    let api = path.starts_with("/v2/") || path.starts_with("/v1/");
    let path = if api { &path[3..] } else { path };
    if path == "/" { host.to_owned() } else { format!("{host}{path}") }
}

fn is_on_hub(repository: &str) -> bool {
    match repository.split_once('/') {
        None => !repository.is_empty(),
        Some(("docker.io" | HUB, _)) => true,
        Some((first, _)) => !first.is_empty() && !first.contains(['.', ':']),
    }
}

/// Ports equal, as many parts of the name that fit one by one, and the path a beginning.
pub(super) fn fits(place: &str, repository: &str) -> bool {
    let split = |text: &str| -> (Vec<String>, String, String) {
        let (host, path) = text.find('/').map_or((text, ""), |at| text.split_at(at));
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => (name, port),
            _ => (host, ""),
        };
        (name.split('.').map(str::to_owned).collect(), port.to_owned(), path.to_owned())
    };
    let ((names, port, path), (wanted, wanted_port, wanted_path)) =
        (split(place), split(repository));
    port == wanted_port
        && names.len() == wanted.len()
        && wanted_path.starts_with(&path)
        && names.iter().zip(&wanted).all(|(pattern, part)| glob(pattern, part))
}

/// `*`, `?`, `[a-z]`, `[^a]` and `\`, as a shell has them; a broken pattern fits nothing. The time is
/// bounded by the product of both lengths.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where the last star was, and how much of the text it takes.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, t));
            p += 1;
            continue;
        }
        match one(&pattern[p..], text[t]) {
            Some(next) => (p, t) = (p + next, t + 1),
            None => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                (p, t) = (at + 1, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// How long the pattern's first item is, if it fits the character.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match *pattern.first()? {
        '?' => Some(1),
        '\\' => (*pattern.get(1)? == c).then_some(2),
        '[' => set(pattern, c),
        plain => (plain == c).then_some(1),
    }
}

fn set(pattern: &[char], c: char) -> Option<usize> {
    let negated = pattern.get(1) == Some(&'^');
    let first = if negated { 2 } else { 1 };
    let (mut at, mut found) = (first, false);
    while *pattern.get(at)? != ']' || at == first {
        let member = |at: &mut usize| -> Option<char> {
            if *pattern.get(*at)? == '\\' {
                *at += 1;
            }
            let member = *pattern.get(*at)?;
            *at += 1;
            Some(member)
        };
        let low = member(&mut at)?;
        let mut high = low;
        if pattern.get(at) == Some(&'-') {
            at += 1;
            high = member(&mut at)?;
        }
        found |= low <= c && c <= high;
    }
    (found != negated).then_some(at + 1)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn keyring(auths: Value) -> Keyring {
        let mut keyring = Keyring::default();
        keyring.read(json!({"auths": auths}).to_string().as_bytes(), false, None).unwrap();
        keyring
    }

    fn users(keyring: &Keyring, repository: &str) -> String {
        let found = keyring.lookup(repository);
        found.iter().map(|l| l.auth.username.as_str()).collect::<Vec<_>>().join(" ")
    }

    fn login(user: &str) -> Value {
        json!({"auth": STANDARD.encode(format!("{user}:p"))})
    }

    #[test]
    fn the_most_specific_login_comes_first_and_all_that_fit_follow() {
        let ring = keyring(json!({
            "r.example": login("all"), "r.example/a": login("a"), "r.example/a/b": login("ab"),
            "other.example": login("other"), "r.example:5000": login("port"),
        }));
        assert_eq!(users(&ring, "r.example/a/b/c"), "ab a all");
        assert_eq!(users(&ring, "r.example/x"), "all");
        assert_eq!(users(&ring, "r.example:5000/a"), "port");
        assert_eq!(users(&ring, "none.example/a"), "");
    }

    #[test]
    fn hosts_may_be_patterns_part_by_part() {
        let ring = keyring(json!({
            "*.r.example": login("star"), "reg-[0-9].r.example": login("set"), "r*g.r.example": login("one"),
            "*": login("single"),
        }));
        assert_eq!(users(&ring, "reg-7.r.example/x"), "set star");
        assert_eq!(users(&ring, "reg.r.example/x"), "one star");
        assert_eq!(users(&ring, "a.reg.r.example/x"), "");
        assert_eq!(users(&ring, "r.example/x"), "");
        assert!(glob("a*b*c", "axxbyyc") && !glob("a*b*c", "axxbyy") && !glob("[", "["));
        assert!(glob("[^a]", "b") && !glob("[^a]", "a") && glob(r"\*", "*") && !glob(r"\*", "x"));
    }

    #[test]
    fn keys_may_be_addresses_and_the_hub_has_its_own() {
        let ring = keyring(
            json!({"https://r.example/v2/": login("u"), "http://p.example/v1/team": login("t")}),
        );
        assert_eq!(users(&ring, "r.example/x"), "u");
        assert_eq!(users(&ring, "p.example/team/x"), "t");
        let ring = keyring(json!({"https://index.docker.io/v1/": login("hub")}));
        assert_eq!(users(&ring, "docker.io/library/busybox"), "hub");
        assert_eq!(users(&ring, "r.example/x"), "");
    }

    #[test]
    fn both_types_of_secrets_are_read_and_no_others() {
        let secret = |kind: &str, key: &str, content: Value| -> Secret {
            let data = json!({key: STANDARD.encode(content.to_string())});
            serde_json::from_value(json!({"type": kind, "data": data})).unwrap()
        };
        let new = secret(TYPE_JSON, KEY_JSON, json!({"auths": {"r.example": {"username": "new"}}}));
        let old = secret(TYPE_CFG, KEY_CFG, json!({"r.example": {"username": "old"}}));
        let other = secret("Opaque", KEY_JSON, json!({"auths": {"r.example": {"username": "x"}}}));
        let ring = Keyring::of([&new, &old, &other].into_iter()).unwrap();
        assert_eq!(users(&ring, "r.example/x"), "new old");
        let bad = secret(TYPE_JSON, KEY_JSON, json!({"auths": {"r.example": {"auth": "YQ=="}}}));
        let said = Keyring::of([&bad].into_iter()).err().unwrap();
        assert!(said.starts_with("unable to parse auth field"), "{said}");
    }

    #[test]
    fn a_login_without_padding_is_read() {
        let ring = keyring(json!({"r.example": {"auth": "dTpwdw"}}));
        assert_eq!(users(&ring, "r.example/x"), "u");
    }
}
