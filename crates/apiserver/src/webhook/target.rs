//! What a `clientConfig` names: a URL, or a service's port and path.

use serde_json::Value;

/// Where a webhook is, and how it is addressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// The whole address as it is sent and told in errors, with the time limit that upstream
    /// tells its webhooks.
    pub(super) uri: String,
    /// Name (or address) that the certificate must be for.
    pub(super) host: String,
    pub(super) place: Place,
}

/// Where connections are opened to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// The host of a URL, as this process reaches it.
    Host {
        port: u16,
    },
    Service {
        namespace: String,
        name: String,
        port: u16,
    },
}

impl Target {
    /// Reads a `clientConfig` that was validated; what is not in order all the same is an error.
    pub(super) fn parse(config: &Value) -> Result<Target, String> {
        let service = &config["service"];
        if service.is_object() {
            return Ok(Target::of_service(service));
        }
        match config["url"].as_str() {
            Some(url) => Target::of_url(url),
            None => Err("webhook configuration must have either service or URL".into()),
        }
    }

    fn of_service(service: &Value) -> Target {
        let text = |key: &str| service[key].as_str().unwrap_or("").to_owned();
        let (namespace, name) = (text("namespace"), text("name"));
        let port = service["port"].as_u64().and_then(|p| u16::try_from(p).ok()).unwrap_or(443);
        let host = format!("{name}.{namespace}.svc");
        let uri = format!("https://{host}:{port}{}?timeout=30s", rooted(&text("path")));
        Target { uri, host, place: Place::Service { namespace, name, port } }
    }

    fn of_url(url: &str) -> Result<Target, String> {
        let unusable = |why: &str| format!("Unparsable URL: parse {url:?}: {why}");
        let uri: http::Uri = url.parse().map_err(|_| unusable("invalid URI"))?;
        let host = uri.host().filter(|h| !h.is_empty()).ok_or_else(|| unusable("no host"))?;
        let authority = uri.authority().map_or("", |a| a.as_str());
        Ok(Target {
            uri: format!("https://{authority}{}?timeout=30s", rooted(uri.path())),
            host: host.trim_matches(['[', ']']).to_owned(),
            place: Place::Host { port: uri.port_u16().unwrap_or(443) },
        })
    }
}

fn rooted(path: &str) -> String {
    format!("/{}", path.trim_matches('/'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn services_are_addressed_by_their_dns_name() {
        let service = json!({"service": {"namespace": "ns", "name": "hook", "path": "/convert"}});
        let target = Target::parse(&service).expect("a target");
        assert_eq!(target.uri, "https://hook.ns.svc:443/convert?timeout=30s");
        assert_eq!(target.host, "hook.ns.svc");
    }

    #[test]
    fn a_url_keeps_its_host() {
        let target = Target::parse(&json!({"url": "https://[::1]:8443/x"})).expect("a target");
        assert_eq!(target.uri, "https://[::1]:8443/x?timeout=30s");
        assert_eq!((target.host.as_str(), target.place), ("::1", Place::Host { port: 8443 }));
        assert!(Target::parse(&json!({"url": "https://a b"})).is_err());
        assert!(Target::parse(&json!({})).is_err());
    }
}
