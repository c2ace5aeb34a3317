//! Credential plugins: programs that print an `ExecCredential` (client-go's `plugin/pkg/client/auth/exec`).

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

/// Longest that a plugin may take: it usually asks a server for a token.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Longest output.
const OUTPUT_MAX: u64 = 1 << 20;
const VERSIONS: [&str; 2] =
    ["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"];

/// A user's `exec` in a kubeconfig.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExecPlugin {
    command: String,
    args: Option<Vec<String>>,
    env: Option<Vec<Variable>>,
    api_version: String,
    install_hint: String,
    provide_cluster_info: bool,
    interactive_mode: String,
    /// The cluster, as plugins that ask for it are told.
    #[serde(skip)]
    pub(crate) cluster: Value,
    /// Commands with a slash are relative to the kubeconfig.
    #[serde(skip)]
    pub(crate) folder: PathBuf,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Variable {
    name: String,
    value: String,
}

/// What a plugin gave.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Credential {
    pub(crate) token: Option<String>,
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
    pub(crate) expires: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Printed {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    status: Option<Status>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    token: String,
    client_certificate_data: String,
    client_key_data: String,
    expiration_timestamp: Option<Timestamp>,
}

impl ExecPlugin {
    /// What of it cannot be used.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.command.is_empty() {
            return Err("the user's exec has no command".into());
        }
        if !VERSIONS.contains(&self.api_version.as_str()) {
            return Err(format!("exec plugin: invalid apiVersion {:?}", self.api_version));
        }
        match self.interactive_mode.as_str() {
            "Never" | "IfAvailable" => Ok(()),
            "" if self.api_version == VERSIONS[1] => Ok(()),
            "" => Err(format!(
                "interactiveMode must be specified for {} to use exec authentication plugin",
                self.command
            )),
            "Always" => {
                Err("exec plugin cannot support interactive mode: standard input is unavailable"
                    .into())
            }
            other => Err(format!("invalid interactiveMode for {}: {other:?}", self.command)),
        }
    }

    fn path(&self) -> PathBuf {
        match self.command.contains('/') {
            true => self.folder.join(&self.command),
            false => PathBuf::from(&self.command),
        }
    }

    /// `KUBERNETES_EXEC_INFO`.
    fn info(&self) -> Value {
        let mut spec = json!({"interactive": false});
        if self.provide_cluster_info {
            spec["cluster"] = self.cluster.clone();
        }
        json!({"kind": "ExecCredential", "apiVersion": self.api_version, "spec": spec})
    }

    pub(crate) async fn run(&self) -> Result<Credential, String> {
        let mut command = tokio::process::Command::new(self.path());
        command
            .args(self.args.iter().flatten())
            .envs(self.env.iter().flatten().map(|v| (&v.name, &v.value)))
            .env("KUBERNETES_EXEC_INFO", self.info().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => self.not_found(),
            _ => format!("exec: {e}"),
        })?;
        let mut out = child.stdout.take().ok_or("exec: no standard output")?.take(OUTPUT_MAX);
        let mut text = Vec::new();
        let work = async {
            out.read_to_end(&mut text).await?;
            child.wait().await
        };
        let ended = tokio::time::timeout(TIMEOUT, work).await;
        let late = |_| format!("exec: executable {} does not end", self.command);
        let status = ended.map_err(late)?.map_err(|e| format!("exec: {e}"))?;
        if !status.success() {
            let code = status.code().unwrap_or(-1);
            return Err(format!("exec: executable {} failed with exit code {code}", self.command));
        }
        self.read(&text)
    }

    fn not_found(&self) -> String {
        let hint = match self.install_hint.is_empty() {
            true => String::new(),
            false => format!("\n\n{}", self.install_hint),
        };
        format!("exec: executable {} not found{hint}", self.command)
    }

    fn read(&self, text: &[u8]) -> Result<Credential, String> {
        let printed: Printed =
            serde_json::from_slice(text).map_err(|e| format!("decoding stdout: {e}"))?;
        if printed.kind != "ExecCredential" || printed.api_version != self.api_version {
            return Err(format!(
                "exec plugin is configured to use API version {}, plugin returned version {}",
                self.api_version, printed.api_version
            ));
        }
        let status = printed.status.ok_or("exec plugin didn't return a status field")?;
        let (certificate, key) = (status.client_certificate_data, status.client_key_data);
        if certificate.is_empty() != key.is_empty() {
            return Err("exec plugin returned only certificate or key, not both".into());
        }
        if status.token.is_empty() && certificate.is_empty() {
            return Err("exec plugin didn't return a token or cert/key pair".into());
        }
        Ok(Credential {
            token: Some(status.token).filter(|token| !token.is_empty()),
            certificate_pem: certificate,
            key_pem: key,
            expires: status.expiration_timestamp,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> ExecPlugin {
        ExecPlugin {
            command: "sh".into(),
            args: Some(vec!["-c".into(), script.into()]),
            env: Some(vec![Variable { name: "T".into(), value: "secret".into() }]),
            api_version: VERSIONS[0].into(),
            interactive_mode: "Never".into(),
            provide_cluster_info: true,
            cluster: json!({"server": "https://h"}),
            ..ExecPlugin::default()
        }
    }

    #[tokio::test]
    async fn a_plugin_is_told_the_cluster_and_gives_a_token() {
        let script = r#"case "$KUBERNETES_EXEC_INFO" in *'"server":"https://h"'*) ;; *) exit 9;; esac
            echo '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"token":"'$T'","expirationTimestamp":"2030-01-01T00:00:00Z"}}'"#;
        let got = shell(script).run().await.expect("a credential");
        assert_eq!(got.token.as_deref(), Some("secret"));
        assert_eq!(got.expires, Some("2030-01-01T00:00:00Z".parse().expect("a time")));
    }

    #[tokio::test]
    async fn what_is_no_credential_is_refused() {
        let told = async |script: &str| shell(script).run().await.expect_err("refused");
        assert_eq!(told("exit 3").await, "exec: executable sh failed with exit code 3");
        assert!(told("echo nothing").await.starts_with("decoding stdout"));
        let print = |status: &str| {
            format!(
                r#"echo '{{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1"{status}}}'"#
            )
        };
        assert!(told(&print("")).await.contains("didn't return a status"));
        assert!(told(&print(r#","status":{}"#)).await.contains("a token or cert/key pair"));
        let half = told(&print(r#","status":{"clientKeyData":"k"}"#)).await;
        assert!(half.contains("not both"), "{half}");
        let mut absent = shell("");
        absent.command = "no-such-program".into();
        absent.install_hint = "install it".into();
        let told = absent.run().await.expect_err("absent");
        assert_eq!(told, "exec: executable no-such-program not found\n\ninstall it");
        absent.api_version = "client.authentication.k8s.io/v1alpha1".into();
        assert!(absent.check().expect_err("old").contains("invalid apiVersion"));
        let mut asks = shell("");
        asks.interactive_mode = "Always".into();
        assert!(asks.check().is_err());
        asks.interactive_mode = String::new();
        assert!(asks.check().is_err());
    }
}
