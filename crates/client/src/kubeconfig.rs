//! Kubeconfig files: clusters, users, and contexts that join them.
//!
//! What would change whom is spoken to, or as whom, and is not supported is refused by name rather
//! than passed over.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::exec_plugin::ExecPlugin;
use crate::https::{Credentials, HttpsConfig};

/// Why a kubeconfig cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("kubeconfig {path}: {why}")]
pub struct KubeconfigError {
    path: String,
    why: String,
}

/// A kubeconfig file that was read.
#[derive(Debug)]
pub struct Kubeconfig {
    path: PathBuf,
    file: File,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    clusters: Option<Vec<Named>>,
    #[serde(default)]
    users: Option<Vec<Named>>,
    #[serde(default)]
    contexts: Option<Vec<Named>>,
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
    exec: Option<ExecPlugin>,
    auth_provider: Option<Value>,
    username: Option<String>,
    password: Option<String>,
    #[serde(rename = "as")]
    impersonate: Option<String>,
    as_uid: Option<String>,
    as_groups: Option<Vec<String>>,
    as_user_extra: Option<Value>,
}

impl Kubeconfig {
    pub fn load(path: &Path) -> Result<Kubeconfig, KubeconfigError> {
        let failed = |why: String| KubeconfigError { path: path.display().to_string(), why };
        let text = std::fs::read_to_string(path).map_err(|e| failed(format!("read: {e}")))?;
        Kubeconfig::parse(&text, path)
    }

    /// Files that `text` names are relative to the folder of `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Kubeconfig, KubeconfigError> {
        let file = serde_yaml_ng::from_str(text);
        let failed = |e: serde_yaml_ng::Error| KubeconfigError {
            path: path.display().to_string(),
            why: e.to_string(),
        };
        Ok(Kubeconfig { path: path.to_owned(), file: file.map_err(failed)? })
    }

    /// The names of its contexts.
    pub fn contexts(&self) -> impl Iterator<Item = &str> {
        self.file.contexts.iter().flatten().map(|context| context.name.as_str())
    }

    /// The connection that a context describes; the current one when none is named.
    pub fn config(&self, context: Option<&str>) -> Result<HttpsConfig, KubeconfigError> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let name = context.unwrap_or(&self.file.current_context);
        connection(&self.file, name, folder)
            .map_err(|why| KubeconfigError { path: self.path.display().to_string(), why })
    }
}

impl Kubeconfig {
    /// The credentials of a user, for servers that the file does not name; `None` when no user has
    /// the name.
    pub fn user(&self, name: &str) -> Option<Result<Credentials, KubeconfigError>> {
        let failed = |why| KubeconfigError { path: self.path.display().to_string(), why };
        self.file.users.iter().flatten().find(|user| user.name == name)?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let nowhere = HttpsConfig::new(String::new(), Vec::new(), Credentials::Anonymous);
        let user = body(&self.file.users, "user", name);
        Some(user.and_then(|user| credentials(user, folder, &nowhere)).map_err(failed))
    }

    /// The user of the current context.
    pub fn current_user(&self) -> Option<String> {
        let context: ContextBody =
            body(&self.file.contexts, "context", &self.file.current_context).ok()?;
        Some(context.user).filter(|user| !user.is_empty())
    }
}

fn connection(file: &File, context: &str, folder: &Path) -> Result<HttpsConfig, String> {
    if context.is_empty() {
        return Err("current-context is not set".into());
    }
    let context: ContextBody = body(&file.contexts, "context", context)?;
    let cluster: ClusterBody = body(&file.clusters, "cluster", &context.cluster)?;
    let user: UserBody = match context.user.is_empty() {
        true => UserBody::default(),
        false => body(&file.users, "user", &context.user)?,
    };
    if !cluster.server.starts_with("https://") {
        return Err(format!("server {:?} must begin with https://", cluster.server));
    }
    let ca = material(
        "certificate-authority",
        cluster.certificate_authority.as_deref(),
        cluster.certificate_authority_data.as_deref(),
        folder,
    )?;
    if cluster.insecure_skip_tls_verify && ca.is_some() {
        return Err(
            "certificate-authority and insecure-skip-tls-verify must not be given together".into(),
        );
    }
    let present = |text: Option<String>| text.filter(|text| !text.is_empty());
    let mut config = HttpsConfig {
        server: cluster.server,
        ca_pem: ca.unwrap_or_default(),
        insecure_skip_tls_verify: cluster.insecure_skip_tls_verify,
        tls_server_name: present(cluster.tls_server_name),
        proxy_url: present(cluster.proxy_url),
        credentials: Credentials::Anonymous,
    };
    config.credentials = credentials(user, folder, &config)?;
    Ok(config)
}

fn body<T>(list: &Option<Vec<Named>>, what: &str, name: &str) -> Result<T, String>
where
    T: for<'de> Deserialize<'de>,
{
    let entry = list.iter().flatten().find(|entry| entry.name == name);
    let entry = entry.ok_or_else(|| format!("no {what} is named {name:?}"))?;
    T::deserialize(&entry.cluster).map_err(|e| format!("{what} {name:?}: {e}"))
}

fn credentials(user: UserBody, folder: &Path, config: &HttpsConfig) -> Result<Credentials, String> {
    let refused = [
        ("auth-provider", user.auth_provider.is_some()),
        ("as", user.impersonate.is_some()),
        ("as-uid", user.as_uid.is_some()),
        ("as-groups", user.as_groups.is_some()),
        ("as-user-extra", user.as_user_extra.is_some()),
    ];
    if let Some((name, _)) = refused.iter().find(|(_, given)| *given) {
        return Err(format!(
            "the user's {name} is not supported; use a client certificate, a token or exec"
        ));
    }
    let (file, data) = (user.client_certificate, user.client_certificate_data);
    let cert = material("client-certificate", file.as_deref(), data.as_deref(), folder)?;
    let (file, data) = (user.client_key, user.client_key_data);
    let key = material("client-key", file.as_deref(), data.as_deref(), folder)?;
    let certificate = match (cert, key) {
        (Some(cert_pem), Some(key_pem)) => Some(Credentials::Certificate { cert_pem, key_pem }),
        (Some(_), None) => {
            return Err("the user has a client-certificate without its client-key".into());
        }
        (None, Some(_)) => {
            return Err("the user has a client-key without its client-certificate".into());
        }
        (None, None) => None,
    };
    // The file takes precedence, as in client-go.
    let file = user.token_file.filter(|path| !path.as_os_str().is_empty());
    let token = match (file, user.token.filter(|token| !token.is_empty())) {
        (Some(path), _) => Some(Credentials::TokenFile(folder.join(path))),
        (None, token) => token.map(Credentials::Token),
    };
    let (username, password) =
        (user.username.unwrap_or_default(), user.password.unwrap_or_default());
    let basic = (!username.is_empty() || !password.is_empty())
        .then_some(Credentials::Basic { username, password });
    let exec = user.exec.map(|plugin| exec(plugin, folder, config)).transpose()?;
    let mut given = [certificate, token, basic, exec].into_iter().flatten();
    let first = given.next().unwrap_or(Credentials::Anonymous);
    match given.next() {
        Some(_) => {
            Err("the user has more than one of client-certificate, token, username and exec".into())
        }
        None => Ok(first),
    }
}

fn exec(
    mut plugin: ExecPlugin,
    folder: &Path,
    config: &HttpsConfig,
) -> Result<Credentials, String> {
    plugin.check()?;
    plugin.folder = folder.to_owned();
    let ca = base64::engine::general_purpose::STANDARD.encode(&config.ca_pem);
    let mut cluster = json!({"server": config.server, "config": null});
    let fields = [
        ("tls-server-name", config.tls_server_name.as_deref()),
        ("proxy-url", config.proxy_url.as_deref()),
        ("certificate-authority-data", Some(ca.as_str()).filter(|ca| !ca.is_empty())),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            cluster[name] = value.into();
        }
    }
    if config.insecure_skip_tls_verify {
        cluster["insecure-skip-tls-verify"] = true.into();
    }
    plugin.cluster = cluster;
    Ok(Credentials::Exec(Box::new(plugin)))
}

/// Inline data before a file, as in client-go; files are relative to the kubeconfig.
fn material(
    what: &str,
    file: Option<&Path>,
    data: Option<&str>,
    folder: &Path,
) -> Result<Option<Vec<u8>>, String> {
    if let Some(data) = data.filter(|data| !data.is_empty()) {
        let decoded = base64::engine::general_purpose::STANDARD.decode(data);
        return decoded.map(Some).map_err(|_| format!("{what}-data is not base64"));
    }
    let Some(file) = file.filter(|file| !file.as_os_str().is_empty()) else { return Ok(None) };
    let path = folder.join(file);
    let read = std::fs::read(&path).map(Some);
    read.map_err(|e| format!("{what}: read {}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
apiVersion: v1
kind: Config
current-context: here
clusters:
- {name: c, cluster: {server: "https://127.0.0.1:6443", certificate-authority-data: Y2E=}}
- {name: d, cluster: {server: "https://api.example", insecure-skip-tls-verify: true, tls-server-name: n, proxy-url: "http://p"}}
users:
- {name: u, user: {token: secret}}
- {name: f, user: {token: old, tokenFile: t}}
contexts:
- {name: here, context: {cluster: c, user: u}}
- {name: there, context: {cluster: d, user: f}}
- {name: nobody, context: {cluster: c}}
"#;

    fn parse(text: &str, context: Option<&str>) -> Result<HttpsConfig, String> {
        let file = Kubeconfig::parse(text, Path::new("/nowhere/config"));
        file.and_then(|file| file.config(context)).map_err(|e| e.to_string())
    }

    #[test]
    fn contexts_are_chosen_by_name() {
        let config = parse(TEXT, None).expect("the current one");
        assert_eq!(
            (config.server.as_str(), &config.ca_pem[..]),
            ("https://127.0.0.1:6443", &b"ca"[..])
        );
        assert!(matches!(config.credentials, Credentials::Token(token) if token == "secret"));
        let config = parse(TEXT, Some("there")).expect("the other one");
        assert!(config.insecure_skip_tls_verify);
        assert_eq!(config.tls_server_name.as_deref(), Some("n"));
        assert_eq!(config.proxy_url.as_deref(), Some("http://p"));
        let file = Path::new("/nowhere/t");
        assert!(matches!(config.credentials, Credentials::TokenFile(path) if path == file));
        let config = parse(TEXT, Some("nobody")).expect("without a user");
        assert!(matches!(config.credentials, Credentials::Anonymous));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        let refusal =
            |from: &str, to: &str| parse(&TEXT.replace(from, to), None).expect_err("refused");
        assert!(
            refusal("context: here", "context: gone").ends_with("no context is named \"gone\"")
        );
        assert!(refusal("https:", "http:").contains("must begin with https://"));
        assert!(refusal("Y2E=", "x").contains("certificate-authority-data is not base64"));
        assert!(refusal("Y2E=", "Y2E=, insecure-skip-tls-verify: true").contains("together"));
        let user = |to: &str| refusal("token: secret", to);
        assert!(user("client-key-data: a2V5").contains("without its"));
        assert!(user("auth-provider: {name: gcp}").contains("auth-provider is not supported"));
        assert!(user("as: x").contains("as is not supported"));
        assert!(user("token: a, username: x").contains("more than one"));
        assert!(user("exec: {command: x}").contains("invalid apiVersion"));
        let exec = "exec: {command: x, apiVersion: client.authentication.k8s.io/v1beta1}";
        assert!(user(&format!("token: a, {exec}")).contains("more than one"));
        let config = parse(&TEXT.replace("token: secret", exec), None).expect("accepted");
        assert!(matches!(config.credentials, Credentials::Exec(_)));
    }
}
