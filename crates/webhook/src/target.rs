//! What a `clientConfig` names: a URL, or a service's port and path.

use serde_json::Value;

/// Where a webhook is, and how it is addressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The address as it is sent and told in errors, without a query.
    pub(crate) uri: String,
    pub(crate) host: String,
    /// Name (or address) that the certificate must be for.
    pub(crate) server_name: String,
    pub(crate) place: Place,
}

/// Where connections are opened to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
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
    pub(crate) fn parse(config: &Value) -> Result<Target, String> {
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
        let uri = format!("https://{host}:{port}{}", rooted(&text("path")));
        Target {
            uri,
            server_name: host.clone(),
            host,
            place: Place::Service { namespace, name, port },
        }
    }

    pub(crate) fn host_and_port(&self) -> String {
        let (Place::Host { port } | Place::Service { port, .. }) = self.place;
        match self.host.contains(':') {
            true => format!("[{}]:{port}", self.host),
            false => format!("{}:{port}", self.host),
        }
    }

    pub(crate) fn of_url(url: &str) -> Result<Target, String> {
        let unusable = |why: &str| format!("Unparsable URL: parse {url:?}: {why}");
        let uri: http::Uri = url.parse().map_err(|_| unusable("invalid URI"))?;
        let host = uri.host().filter(|h| !h.is_empty()).ok_or_else(|| unusable("no host"))?;
        let authority = uri.authority().map_or("", |a| a.as_str());
        let host = host.trim_matches(['[', ']']).to_owned();
        Ok(Target {
            uri: format!("https://{authority}{}", rooted(uri.path())),
            server_name: host.clone(),
            host,
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
        assert_eq!(target.uri, "https://hook.ns.svc:443/convert");
        assert_eq!(target.server_name, "hook.ns.svc");
        assert_eq!(target.host_and_port(), "hook.ns.svc:443");
    }

    #[test]
    fn a_url_keeps_its_host() {
        let target = Target::parse(&json!({"url": "https://[::1]:8443/x"})).expect("a target");
        assert_eq!(target.uri, "https://[::1]:8443/x");
        assert_eq!((target.host.as_str(), target.place), ("::1", Place::Host { port: 8443 }));
        let target = Target::parse(&json!({"url": "https://[::1]:8443/x"})).expect("a target");
        assert_eq!(target.host_and_port(), "[::1]:8443");
        assert!(Target::parse(&json!({"url": "https://a b"})).is_err());
        assert!(Target::parse(&json!({})).is_err());
    }
}
