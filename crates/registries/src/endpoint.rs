//! One host that a registry's images may be asked of.

use std::path::PathBuf;
use std::time::Duration;

/// Where requests for a registry go.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// `https` and `http`, tried in this order.
    pub schemes: Vec<&'static str>,
    /// `host[:port]`.
    pub host: String,
    /// The path before `/<repository>/manifests/…`, e.g. `/v2`.
    pub path: String,
    pub can: Can,
    pub tls: Tls,
    /// Sent with every request to this host, and to no other.
    pub headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// Repositories that have other names here: the first that changes the name counts.
    pub rewrites: Vec<Rewrite>,
    /// Credentials for requests that bring none.
    pub login: Option<Login>,
    /// To connect, where the configuration says how long.
    pub dial_timeout: Option<Duration>,
    /// For a mirror: the registry whose images are asked for (the parameter `ns`). `None`: it is that registry.
    pub mirror_of: Option<String>,
}

/// A capability of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Can {
    /// Content by its digest.
    pub pull: bool,
    /// Resolve a tag to a digest.
    pub resolve: bool,
    pub push: bool,
}

impl Can {
    pub const ALL: Can = Can { pull: true, resolve: true, push: true };
    pub(crate) const NOTHING: Can = Can { pull: false, resolve: false, push: false };
}

/// Whom an endpoint is believed to be, and as whom we come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Files of authorities, believed beside the machine's own.
    pub authorities: Vec<PathBuf>,
    pub client: Option<KeyPair>,
    /// Any certificate is accepted.
    pub skip_verify: bool,
}

/// A certificate's file, and its key's: the same when it holds both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Credentials in the form of Docker's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Login {
    pub username: String,
    pub password: String,
    /// `username:password` in base64.
    pub auth: String,
    pub identity_token: String,
}

/// A rule for repositories' names.
#[derive(Debug, Clone)]
pub struct Rewrite {
    pub pattern: regex::Regex,
    /// With `$1` for the pattern's first group.
    pub replacement: String,
}

impl Endpoint {
    /// A repository's name at this endpoint.
    pub fn repository(&self, name: &str) -> String {
        let changed = |rule: &Rewrite| {
            let new = rule.pattern.replace_all(name, rule.replacement.as_str());
            (new != name).then(|| new.into_owned())
        };
        self.rewrites.iter().find_map(changed).unwrap_or_else(|| name.to_owned())
    }

    /// The default endpoint of a registry without configuration, as in containerd: Docker Hub under its other name;
    /// registries of this machine without certificate checks, and on ports other than 443 by plain HTTP, too.
    pub(crate) fn standard(registry: &str) -> Endpoint {
        let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        let (name, port) = split(host);
        let local = is_loopback(name);
        let schemes = match port {
            Some("80") if local => vec!["http"],
            Some(port) if local && port != "443" => vec!["https", "http"],
            _ => vec!["https"],
        };
        Endpoint {
            schemes,
            host: host.to_owned(),
            path: "/v2".to_owned(),
            can: Can::ALL,
            tls: Tls { skip_verify: local, ..Tls::default() },
            headers: Vec::new(),
            rewrites: Vec::new(),
            login: None,
            dial_timeout: None,
            mirror_of: None,
        }
    }
}

/// Whether a request to `host` is one to the registry itself.
pub(crate) fn mirror_of(registry: &str, host: &str) -> Option<String> {
    let own = host == registry || (registry == "docker.io" && host == "registry-1.docker.io");
    (!own).then(|| registry.to_owned())
}

/// A host's name without brackets, and its port.
fn split(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !port.is_empty() => {
            (name.trim_matches(['[', ']']), Some(port))
        }
        _ => (host.trim_matches(['[', ']']), None),
    }
}

fn is_loopback(name: &str) -> bool {
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A URL taken apart: scheme, host, path without an end of `/`.
pub(crate) struct Url {
    pub(crate) scheme: Option<&'static str>,
    pub(crate) host: String,
    pub(crate) path: String,
}

impl Url {
    /// With or without a scheme; `None` for the scheme when it is left out.
    pub(crate) fn parse(text: &str) -> Result<Url, String> {
        let (scheme, rest) = match text.split_once("://") {
            Some(("https", rest)) => (Some("https"), rest),
            Some(("http", rest)) => (Some("http"), rest),
            Some((other, _)) => return Err(format!("scheme {other:?}: use http or https")),
            None => (None, text),
        };
        let uri: http::Uri =
            format!("https://{rest}").parse().map_err(|e| format!("{text:?} is no URL: {e}"))?;
        let authority = uri.authority().map_or("", |a| a.as_str());
        if authority.is_empty() || authority.contains('@') {
            return Err(format!("{text:?}: use [scheme://]host[:port][/path]"));
        }
        if uri.query().is_some() {
            return Err(format!("{text:?}: a query has no meaning here"));
        }
        let mut path: Vec<&str> = Vec::new();
        for part in uri.path().split('/').filter(|part| !part.is_empty() && *part != ".") {
            match part {
                ".." => drop(path.pop()),
                _ => path.push(part),
            }
        }
        let path = path.iter().fold(String::new(), |all, part| format!("{all}/{part}"));
        Ok(Url { scheme, host: authority.to_owned(), path })
    }

    /// The schemes to try where TLS was set up for the host or not (containerd's `HTTPFallback`).
    pub(crate) fn schemes(&self, tls_is_set: bool) -> Vec<&'static str> {
        let (_, port) = split(&self.host);
        match self.scheme {
            Some("http") if tls_is_set && port != Some("80") => vec!["https", "http"],
            Some(scheme) => vec![scheme],
            None => Endpoint::standard(&self.host).schemes,
        }
    }
}
