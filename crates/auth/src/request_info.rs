//! What a request asks for, read off its method and path (apiserver `endpoints/request`).

use http::Method;

/// A parsed request line. Everything is empty where it does not apply.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// True for `/api/...` and `/apis/...` paths that name a resource.
    pub is_resource: bool,
    /// API verb (`get`, `list`, `watch`, …) or the lower-case method for other paths.
    pub verb: &'static str,
    pub path: String,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// What follows the subresource: proxied paths.
    pub rest: String,
}

impl RequestInfo {
    /// `path` is decoded ([`decode_path`]); `watch` is whether the query asks for one.
    pub fn parse(method: &Method, path: &str, watch: bool) -> RequestInfo {
        let mut info = RequestInfo {
            path: path.to_owned(),
            verb: method_verb(method),
            ..RequestInfo::default()
        };
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let rest = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => {
                info.version = (*version).into();
                rest
            }
            ["apis", group, version, rest @ ..] if !rest.is_empty() => {
                info.group = (*group).into();
                info.version = (*version).into();
                rest
            }
            _ => return info,
        };
        info.is_resource = true;
        // The deprecated form /api/v1/watch/...
        let (rest, watch) = match rest {
            ["watch", rest @ ..] if !rest.is_empty() => (rest, true),
            _ => (rest, watch),
        };
        info.set_resource(rest);
        info.set_verb(method, watch);
        info
    }

    /// Streams: they take no place among the requests under way, have no deadline, and end when the
    /// server does.
    pub fn is_long_running(&self) -> bool {
        let streams = ["attach", "exec", "log", "portforward", "proxy"];
        self.verb == "watch" || self.is_resource && streams.contains(&self.subresource.as_str())
    }

    pub fn is_read(&self) -> bool {
        matches!(self.verb, "get" | "list" | "watch" | "head" | "options")
    }

    fn set_resource(&mut self, parts: &[&str]) {
        let parts = match parts {
            // A namespace's own subresources are those of the object, not a namespaced resource.
            ["namespaces", name] => {
                self.namespace = (*name).into();
                parts
            }
            ["namespaces", name, sub @ ("status" | "finalize")] => {
                self.namespace = (*name).into();
                self.subresource = (*sub).into();
                parts
            }
            ["namespaces", name, rest @ ..] => {
                self.namespace = (*name).into();
                rest
            }
            _ => parts,
        };
        let mut parts = parts.iter();
        self.resource = parts.next().map_or(String::new(), |p| (*p).into());
        self.name = parts.next().map_or(String::new(), |p| (*p).into());
        if let Some(sub) = parts.next() {
            self.subresource = (*sub).into();
        }
        self.rest = parts.copied().collect::<Vec<_>>().join("/");
    }

    fn set_verb(&mut self, method: &Method, watch: bool) {
        self.verb = match (method, self.name.is_empty()) {
            (&Method::POST, _) => "create",
            (&Method::GET | &Method::HEAD, _) if watch && self.subresource.is_empty() => "watch",
            (&Method::GET | &Method::HEAD, true) => "list",
            (&Method::GET | &Method::HEAD, false) => "get",
            (&Method::PUT, _) => "update",
            (&Method::PATCH, _) => "patch",
            (&Method::DELETE, true) => "deletecollection",
            (&Method::DELETE, false) => "delete",
            _ => "",
        };
    }
}

/// A request's path with its escapes decoded, once and before it is split, as Go's `URL.Path`: an
/// escaped slash separates segments like any other. `None` for a malformed escape and for text that
/// is not UTF-8, which no name is.
pub fn decode_path(path: &str) -> Option<String> {
    if !path.contains('%') {
        return Some(path.to_owned());
    }
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
        out.push(digit(digits[0])? << 4 | digit(digits[1])?);
        rest = after;
    }
    String::from_utf8(out).ok()
}

/// The reverse, for paths that go on to somebody else (Go's `URL.EscapedPath`).
pub fn encode_path(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => out.push(char::from(byte)),
            b'-' | b'_' | b'.' | b'~' | b'$' | b'&' | b'+' | b',' | b'/' | b':' | b';' | b'='
            | b'@' => out.push(char::from(byte)),
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}

fn method_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: Method, path: &str, expected: (&str, &str, &str, &str, &str, &str)) {
        let i = RequestInfo::parse(&method, path, false);
        let found = (
            i.verb,
            i.group.as_str(),
            i.namespace.as_str(),
            i.resource.as_str(),
            i.name.as_str(),
            i.subresource.as_str(),
        );
        assert_eq!(found, expected, "{path}");
    }

    #[test]
    fn escapes_are_decoded_once() {
        let decoded = |path| decode_path(path).expect("a path");
        let path = decoded("/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode");
        let info = RequestInfo::parse(&Method::GET, &path, false);
        assert_eq!((info.resource.as_str(), info.name.as_str()), ("clusterroles", "system:node"));
        assert_eq!(decoded("/a%2520b"), "/a%20b");
        let path = decoded("/api/v1/namespaces/a%2Fpods/b%2flog");
        let info = RequestInfo::parse(&Method::GET, &path, false);
        assert_eq!((info.name.as_str(), info.subresource.as_str()), ("b", "log"));
        for malformed in ["/a%", "/a%2", "/a%zz", "/a%+1", "/a%ff"] {
            assert_eq!(decode_path(malformed), None, "{malformed}");
        }
        assert_eq!(encode_path("/a b:c/ä(?)#%"), "/a%20b:c/%C3%A4%28%3F%29%23%25");
    }

    #[test]
    fn paths() {
        check(Method::GET, "/api/v1/pods", ("list", "", "", "pods", "", ""));
        check(Method::GET, "/api/v1/namespaces/a/pods/b/log", ("get", "", "a", "pods", "b", "log"));
        check(Method::GET, "/api/v1/namespaces/a", ("get", "", "a", "namespaces", "a", ""));
        check(
            Method::PUT,
            "/api/v1/namespaces/a/finalize",
            ("update", "", "a", "namespaces", "a", "finalize"),
        );
        check(
            Method::DELETE,
            "/apis/apps/v1/namespaces/a/deployments",
            ("deletecollection", "apps", "a", "deployments", "", ""),
        );
        check(Method::GET, "/api/v1/watch/nodes", ("watch", "", "", "nodes", "", ""));
        assert!(!RequestInfo::parse(&Method::GET, "/apis/apps/v1", false).is_resource);
        let proxied =
            RequestInfo::parse(&Method::GET, "/api/v1/nodes/n/proxy/metrics/cadvisor", false);
        assert_eq!(
            (proxied.subresource.as_str(), proxied.rest.as_str()),
            ("proxy", "metrics/cadvisor")
        );
    }
}
