//! Reads the kubeconfig that a component of its own is given: its current context's server and user.
//!
//! Only what the HTTPS transport can do is accepted; anything else that would change who is spoken
//! to, or as whom, is refused by name rather than passed over. Names are not resolved (the binary
//! is static, and the C library's resolver is not): the server is given by its IP address.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use client::{Credentials, HttpsConfig};
use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    clusters: Vec<Named>,
    #[serde(default)]
    users: Vec<Named>,
    #[serde(default)]
    contexts: Vec<Named>,
}

/// An entry of any of the lists; exactly one of the bodies is there.
#[derive(Debug, Deserialize)]
struct Named {
    name: String,
    #[serde(default, alias = "user", alias = "context")]
    cluster: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ContextBody {
    cluster: String,
    user: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct ClusterBody {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct UserBody {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    exec: Option<Value>,
    auth_provider: Option<Value>,
    username: Option<String>,
    #[serde(rename = "as")]
    impersonate: Option<String>,
}

/// The connection that the file's current context describes.
pub(crate) fn load(path: &Path) -> Result<HttpsConfig> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    parse(&text, folder).with_context(|| format!("kubeconfig {}", path.display()))
}

fn parse(text: &str, folder: &Path) -> Result<HttpsConfig> {
    let file: File = serde_yaml_ng::from_str(text)?;
    if file.current_context.is_empty() {
        bail!("current-context is not set");
    }
    let context: ContextBody = body(&file.contexts, "context", &file.current_context)?;
    let cluster: ClusterBody = body(&file.clusters, "cluster", &context.cluster)?;
    let user: UserBody = body(&file.users, "user", &context.user)?;
    check_server(&cluster)?;
    let ca = material(
        "certificate-authority",
        cluster.certificate_authority.as_deref(),
        cluster.certificate_authority_data.as_deref(),
        folder,
    )?;
    let ca_pem = ca.context(
        "the cluster has no certificate-authority; public authorities are not trusted by default",
    )?;
    Ok(HttpsConfig { server: cluster.server, ca_pem, credentials: credentials(&user, folder)? })
}

fn body<T: for<'de> Deserialize<'de>>(list: &[Named], what: &str, name: &str) -> Result<T> {
    let entry = list.iter().find(|entry| entry.name == name);
    let entry = entry.with_context(|| format!("no {what} is named {name:?}"))?;
    T::deserialize(&entry.cluster).with_context(|| format!("{what} {name:?}"))
}

fn check_server(cluster: &ClusterBody) -> Result<()> {
    if cluster.insecure_skip_tls_verify {
        bail!("insecure-skip-tls-verify is not supported; give certificate-authority");
    }
    if cluster.tls_server_name.is_some() {
        bail!("tls-server-name is not supported; the certificate must name the server's address");
    }
    if let Some(proxy) = &cluster.proxy_url {
        bail!("proxy-url {proxy} is not supported; the server must be reached directly");
    }
    server_ip(&cluster.server)?;
    Ok(())
}

/// The IP address in `https://address[:port]`.
pub(crate) fn server_ip(server: &str) -> Result<IpAddr> {
    let uri: http::Uri = server.parse().with_context(|| format!("server {server:?}"))?;
    if uri.scheme_str() != Some("https") {
        bail!("server {server:?} must begin with https://");
    }
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host.parse().ok().with_context(|| {
        format!("server {server:?}: names are not resolved, give the server's IP address")
    })
}

fn credentials(user: &UserBody, folder: &Path) -> Result<Credentials> {
    let refused = [
        ("exec", user.exec.is_some()),
        ("auth-provider", user.auth_provider.is_some()),
        ("username", user.username.is_some()),
        ("as", user.impersonate.is_some()),
    ];
    if let Some((name, _)) = refused.iter().find(|(_, given)| *given) {
        bail!("the user's {name} is not supported; use a client certificate or a token");
    }
    let (cert_file, cert_data) = (&user.client_certificate, &user.client_certificate_data);
    let cert = material("client-certificate", cert_file.as_deref(), cert_data.as_deref(), folder)?;
    let (key_file, key_data) = (&user.client_key, &user.client_key_data);
    let key = material("client-key", key_file.as_deref(), key_data.as_deref(), folder)?;
    match (cert, key) {
        (Some(cert_pem), Some(key_pem)) => Ok(Credentials::Certificate { cert_pem, key_pem }),
        (Some(_), None) => bail!("the user has a client-certificate without its client-key"),
        (None, Some(_)) => bail!("the user has a client-key without its client-certificate"),
        (None, None) => token(user, folder),
    }
}

fn token(user: &UserBody, folder: &Path) -> Result<Credentials> {
    if let Some(token) = user.token.as_ref().filter(|token| !token.is_empty()) {
        return Ok(Credentials::Token(token.clone()));
    }
    let path =
        user.token_file.as_ref().context("the user has no client-certificate and no token")?;
    let path = folder.join(path);
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(Credentials::Token(text.trim().to_owned()))
}

/// Inline data before a file, as in the original; files are relative to the kubeconfig.
fn material(
    what: &str,
    file: Option<&Path>,
    data: Option<&str>,
    folder: &Path,
) -> Result<Option<Vec<u8>>> {
    if let Some(data) = data.filter(|data| !data.is_empty()) {
        let decoded = base64::engine::general_purpose::STANDARD.decode(data);
        return decoded.map(Some).with_context(|| format!("{what}-data is not base64"));
    }
    let Some(file) = file.filter(|file| !file.as_os_str().is_empty()) else { return Ok(None) };
    let path = folder.join(file);
    std::fs::read(&path).map(Some).with_context(|| format!("{what}: read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
apiVersion: v1
kind: Config
current-context: here
clusters: [{name: c, cluster: {server: "https://127.0.0.1:6443", certificate-authority-data: Y2E=}}]
users: [{name: u, user: {token: secret}}]
contexts: [{name: here, context: {cluster: c, user: u}}]
"#;

    fn refusal(from: &str, to: &str) -> String {
        format!("{:#}", parse(&TEXT.replace(from, to), Path::new("/nowhere")).unwrap_err())
    }

    #[test]
    fn the_current_context_is_used() {
        let config = parse(TEXT, Path::new("/nowhere")).unwrap();
        assert_eq!(config.server, "https://127.0.0.1:6443");
        assert_eq!(config.ca_pem, b"ca");
        assert!(matches!(config.credentials, Credentials::Token(token) if token == "secret"));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        assert_eq!(refusal("context: here", "context: there"), "no context is named \"there\"");
        assert!(refusal("https:", "http:").contains("must begin with https://"));
        assert!(refusal("127.0.0.1", "example.com").contains("IP address"));
        assert!(refusal("token: secret", "exec: {command: x}").contains("exec"));
        assert!(refusal("token: secret", "client-key-data: a2V5").contains("without its"));
        assert!(refusal("Y2E=", "x").contains("certificate-authority-data is not base64"));
        assert!(refusal("token: secret", "tokenFile: t").contains("read /nowhere/t"));
    }
}
