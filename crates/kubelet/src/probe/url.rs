//! Addresses of HTTP probes and hooks, and where a redirect leads.

/// An address: what is dialled, and what is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) tls: bool,
    /// Without brackets.
    pub(crate) host: String,
    /// As it is written; without it the scheme's own.
    pub(crate) port: Option<u16>,
    /// With the query, beginning with a slash.
    pub(crate) path: String,
}

impl Url {
    pub(crate) fn port(&self) -> u16 {
        self.port.unwrap_or(if self.tls { 443 } else { 80 })
    }

    /// Host and port as they are written in the address.
    pub(crate) fn authority(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        self.port.map_or(host.clone(), |port| format!("{host}:{port}"))
    }

    /// The address that a `Location` header means, seen from this one; `None` if it means none.
    pub(crate) fn follow(&self, location: &str) -> Option<Url> {
        let location = location.split('#').next().unwrap_or_default();
        if location.contains(|c: char| c.is_ascii_control()) {
            return None;
        }
        if let Some((scheme, rest)) = location.split_once("://") {
            let tls = match scheme.to_ascii_lowercase().as_str() {
                "http" => false,
                "https" => true,
                _ => return None,
            };
            return absolute(tls, rest);
        }
        if let Some(rest) = location.strip_prefix("//") {
            return absolute(self.tls, rest);
        }
        let own = self.path.split('?').next().unwrap_or_default();
        let path = match location.as_bytes().first() {
            None => self.path.clone(),
            Some(b'/') => location.to_owned(),
            Some(b'?') => format!("{own}{location}"),
            Some(_) => format!("{}{location}", &own[..own.rfind('/').map_or(0, |at| at + 1)]),
        };
        Some(Url { path: plain(&path), ..self.clone() })
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

fn absolute(tls: bool, rest: &str) -> Option<Url> {
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(at);
    let authority = authority.rsplit('@').next().unwrap_or_default();
    let bare = |host: &str| host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => match port {
            "" => (bare(host), None),
            port => (bare(host), Some(port.parse().ok()?)),
        },
        _ => (bare(authority), None),
    };
    (!host.is_empty()).then(|| Url { tls, host, port, path: plain(path) })
}

/// A path as a request has it: with a slash first, without `.` and `..`, and with what may not stand in a
/// request written as `%XX`.
pub(crate) fn plain(path: &str) -> String {
    let path = path.split('#').next().unwrap_or_default();
    let (path, query) = match path.find('?') {
        Some(at) => path.split_at(at),
        None => (path, ""),
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').skip(usize::from(path.starts_with('/'))) {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let directory = path.ends_with("/.") || path.ends_with("/..");
    let end = if directory && !parts.is_empty() { "/" } else { "" };
    escape(&format!("/{}{end}{query}", parts.join("/")))
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0..=b' ' | 127.. => {
                out.push_str(&format!("%{byte:02X}"));
            }
            byte => out.push(char::from(byte)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_seen_from_where_they_were_told() {
        let from =
            Url { tls: false, host: "10.0.0.1".into(), port: Some(8080), path: "/a/b?x=1".into() };
        for (location, to) in [
            ("/c", "http://10.0.0.1:8080/c"),
            ("c", "http://10.0.0.1:8080/a/c"),
            ("../../d/./e", "http://10.0.0.1:8080/d/e"),
            ("?y=2", "http://10.0.0.1:8080/a/b?y=2"),
            ("#part", "http://10.0.0.1:8080/a/b?x=1"),
            ("//other/x", "http://other/x"),
            ("https://u:p@other:444", "https://other:444/"),
            ("http://[::1]:81/x y", "http://[::1]:81/x%20y"),
        ] {
            assert_eq!(from.follow(location).unwrap().to_string(), to, "{location}");
        }
        for bad in ["ftp://x/", "http://", "http://a:b/", "/a\nb"] {
            assert_eq!(from.follow(bad), None, "{bad}");
        }
        assert_eq!(from.follow("https://x/").unwrap().port(), 443);
    }
}
