//! Connections to extension servers: to a service, with the front proxy's certificate and the user's identity in
//! headers.

use std::sync::Arc;
use std::time::Duration;

use auth::User;
use http::{HeaderMap, HeaderName, HeaderValue};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// The certificate by which extension servers know this server, and who signed it.
#[derive(Debug, Clone)]
pub struct FrontProxy {
    /// PEM of the authority, which extension servers read in `extension-apiserver-authentication`.
    pub ca_pem: String,
    pub cert_pem: String,
    pub key_pem: String,
    /// Common names that the certificate may have.
    pub allowed_names: Vec<String>,
}

impl FrontProxy {
    /// Why this cannot be used: no PEM, or a key of another certificate.
    pub(crate) fn check(&self) -> Result<(), String> {
        let wrong = |e: &dyn std::fmt::Display| e.to_string();
        for authority in CertificateDer::pem_slice_iter(self.ca_pem.as_bytes()) {
            authority.map_err(|e| wrong(&e))?;
        }
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(self.cert_pem.as_bytes()).collect();
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).map_err(|e| wrong(&e))?;
        let identity = Some((chain.map_err(|e| wrong(&e))?, key));
        let made = outgoing::client_config(outgoing::Trust::Anybody, identity);
        made.map(drop).map_err(|e| wrong(&e))
    }
}

/// How an extension server is reached.
pub(super) struct Connector {
    pub(super) namespace: String,
    pub(super) service: String,
    pub(super) port: u16,
    /// The error says what of the APIService cannot be used.
    tls: Result<Arc<rustls::ClientConfig>, String>,
}

impl Connector {
    pub(super) fn read(spec: &Value, front_proxy: Option<&FrontProxy>) -> Connector {
        let service = &spec["service"];
        let text = |key: &str| service[key].as_str().unwrap_or("").to_owned();
        let port = service["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        Connector {
            namespace: text("namespace"),
            service: text("name"),
            port: port.unwrap_or(443),
            tls: tls(spec, front_proxy).map(Arc::new),
        }
    }

    /// The name that the certificate must be for.
    pub(super) fn host(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }

    pub(super) async fn open(
        &self,
        services: &dyn webhook::Services,
    ) -> Result<TlsStream<TcpStream>, String> {
        let tls = self.tls.clone()?;
        let name = ServerName::try_from(self.host()).map_err(|e| e.to_string())?;
        let place = (self.namespace.as_str(), self.service.as_str());
        let dialed =
            tokio::time::timeout(outgoing::DIAL_TIMEOUT, services.connect(place, self.port));
        let tcp = dialed.await.map_err(|_| "i/o timeout".to_owned())??;
        outgoing::configure(&tcp);
        let connector = tokio_rustls::TlsConnector::from(tls);
        let greeted = tokio::time::timeout(TLS_TIMEOUT, connector.connect(name, tcp)).await;
        greeted.map_err(|_| "TLS handshake timeout".to_owned())?.map_err(|e| e.to_string())
    }
}

const TLS_TIMEOUT: Duration = outgoing::TLS_TIMEOUT;

fn tls(spec: &Value, front_proxy: Option<&FrontProxy>) -> Result<rustls::ClientConfig, String> {
    use base64::Engine as _;
    let bundle = spec["caBundle"].as_str().unwrap_or("");
    let bundle = base64::engine::general_purpose::STANDARD.decode(bundle);
    let bundle = bundle.map_err(|e| format!("illegal base64 data: {e}"))?;
    let credentials = match front_proxy {
        None => client::Credentials::Anonymous,
        Some(proxy) => client::Credentials::Certificate {
            cert_pem: proxy.cert_pem.clone().into_bytes(),
            key_pem: proxy.key_pem.clone().into_bytes(),
        },
    };
    let auth = client::Auth::new(credentials).map_err(|e| e.to_string())?;
    webhook::client_tls(&bundle, spec["insecureSkipTLSVerify"] == true, auth.certificate())
}

/// Says in headers who asks (client-go `SetAuthProxyHeaders`).
pub(super) fn set_user(headers: &mut HeaderMap, user: &User) {
    let mut add = |name: HeaderName, value: &str| {
        // What no header can carry, the extension server is not told; it knows less of the user then.
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            headers.append(name, value);
        }
    };
    add(HeaderName::from_static("x-remote-user"), &user.name);
    if !user.uid.is_empty() {
        add(HeaderName::from_static("x-remote-uid"), &user.uid);
    }
    for group in &user.groups {
        add(HeaderName::from_static("x-remote-group"), group);
    }
    for (key, values) in &user.extra {
        let name = format!("x-remote-extra-{}", escaped(key));
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { continue };
        values.iter().for_each(|value| add(name.clone(), value));
    }
}

/// A key as part of a header's name.
fn escaped(key: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
    let one = |byte: u8| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    key.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_user_is_told_in_headers() {
        let mut user = User::new("jane", &["a", "b"]);
        user.uid = "7".into();
        user.extra = BTreeMap::from([("example.com/scope%".into(), vec!["x".into(), "y".into()])]);
        let mut headers = HeaderMap::new();
        set_user(&mut headers, &user);
        let all = |name: &str| -> Vec<&str> {
            headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect()
        };
        assert_eq!(all("x-remote-user"), ["jane"]);
        assert_eq!(all("x-remote-uid"), ["7"]);
        assert_eq!(all("x-remote-group"), ["a", "b"]);
        assert_eq!(all("x-remote-extra-example.com%2fscope%25"), ["x", "y"]);
    }
}
