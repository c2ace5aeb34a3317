//! Where a webhook is, whom it must prove to be, and as whom it is asked.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::{Credentials, HttpsConfig};
use http::{HeaderName, HeaderValue};
use serde_json::Value;

use crate::target::Target;

/// Everything that a client of a webhook needs to know.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub(crate) target: Target,
    /// PEM of the authorities that may have signed the webhook's certificate; blank for the machine's.
    pub(crate) ca_pem: Vec<u8>,
    /// The webhook's certificate is not looked at.
    pub(crate) is_insecure: bool,
    pub(crate) credentials: Credentials,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

impl Endpoint {
    /// A `clientConfig` of a configuration object; the error says what of it cannot be used.
    pub fn of_client_config(config: &Value) -> Result<Endpoint, String> {
        let bundle = config["caBundle"].as_str().unwrap_or("");
        let ca_pem = STANDARD.decode(bundle).map_err(|e| format!("illegal base64 data: {e}"))?;
        Ok(Endpoint {
            target: Target::parse(config)?,
            ca_pem,
            is_insecure: false,
            credentials: Credentials::Anonymous,
            headers: Vec::new(),
        })
    }

    /// The server of a kubeconfig.
    pub fn of_kubeconfig(config: HttpsConfig) -> Result<Endpoint, String> {
        if config.proxy_url.is_some() {
            return Err("a webhook's proxy-url is not supported".into());
        }
        let mut target = Target::of_url(&config.server)?;
        if let Some(name) = config.tls_server_name {
            target.server_name = name;
        }
        Ok(Endpoint {
            target,
            ca_pem: config.ca_pem,
            is_insecure: config.insecure_skip_tls_verify,
            credentials: config.credentials,
            headers: Vec::new(),
        })
    }

    /// `host:port`, by which a kubeconfig of admission webhooks names its users.
    pub fn host_and_port(&self) -> String {
        self.target.host_and_port()
    }

    pub fn with_credentials(mut self, credentials: Credentials) -> Endpoint {
        self.credentials = credentials;
        self
    }

    /// Sends a header with every request.
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Endpoint {
        self.headers.push((name, value));
        self
    }
}
