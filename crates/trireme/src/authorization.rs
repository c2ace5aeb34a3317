//! Who may do what: from flags and files to authorizers, which follow their file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use apiserver::{
    Abac, AuthorizationConfiguration, AuthorizationModes, AuthorizerType, Mode, ReviewWebhook,
    Server, WebhookSettings,
};

use crate::config_reloads::AUTHORIZATION;
use crate::durations::go_duration;
use crate::hooks;

/// Between two looks at the configuration's file (upstream looks every minute, and when told).
const LOOK: Duration = Duration::from_secs(10);

/// What the flags say.
pub(crate) struct Authorization {
    pub(crate) modes: AuthorizationModes,
    file: Option<Followed>,
}

/// A file that is followed.
pub(crate) struct Followed {
    path: PathBuf,
    text: String,
    /// Policies of ABAC, which stay as they were read.
    abac: Option<Arc<Abac>>,
    /// The types that the first state of the file names: none may go, none may come.
    types: Vec<&'static str>,
}

impl Authorization {
    /// Those of a cluster in one command.
    pub(crate) fn usual() -> Authorization {
        Authorization { modes: AuthorizationModes::usual(), file: None }
    }

    /// Without the modes: the file that decides them from now on.
    pub(crate) fn into_parts(self) -> (AuthorizationModes, Option<Followed>) {
        (self.modes, self.file)
    }
}

/// The flags of `kube-apiserver`.
#[derive(Debug, clap::Args)]
pub(crate) struct AuthorizationFlags {
    /// Comma-separated, asked in order: AlwaysAllow, AlwaysDeny, ABAC, Webhook, Node, RBAC. Node,RBAC when
    /// absent.
    #[arg(long)]
    authorization_mode: Option<String>,
    /// Policies of ABAC: JSON, one a line.
    #[arg(long)]
    authorization_policy_file: Option<PathBuf>,
    /// A kubeconfig of a server that is asked by SubjectAccessReviews (mode Webhook).
    #[arg(long)]
    authorization_webhook_config_file: Option<PathBuf>,
    /// Version of those SubjectAccessReviews: v1 or v1beta1; v1beta1 when absent.
    #[arg(long)]
    authorization_webhook_version: Option<String>,
    /// How long its allowing answers are kept, as Go writes durations; 5m0s when absent.
    #[arg(long, value_parser = go_duration)]
    authorization_webhook_cache_authorized_ttl: Option<Duration>,
    /// How long its other answers are kept, as Go writes durations; 30s when absent.
    #[arg(long, value_parser = go_duration)]
    authorization_webhook_cache_unauthorized_ttl: Option<Duration>,
    /// An AuthorizationConfiguration: authorizers in order, webhooks with conditions. It is followed.
    #[arg(long)]
    authorization_config: Option<PathBuf>,
}

impl AuthorizationFlags {
    pub(crate) fn read(&self) -> Result<Authorization> {
        let abac = self.authorization_policy_file.as_deref().map(abac).transpose()?;
        let abac = abac.map(Arc::new);
        match &self.authorization_config {
            None => Ok(Authorization { modes: self.modes(abac)?, file: None }),
            Some(_) if self.has_modes() => bail!(
                "--authorization-config can not be specified when --authorization-mode or --authorization-webhook-* flags are defined"
            ),
            Some(path) => {
                let text = read(path)?;
                let file = || format!("--authorization-config: {}", path.display());
                let read = AuthorizationConfiguration::parse(&text, &[]).with_context(file)?;
                let types = read.0.iter().map(AuthorizerType::name);
                let types = types.filter(|name| *name != "Webhook").collect();
                let modes = modes(read, abac.as_ref()).with_context(file)?;
                let path = path.clone();
                let file = Some(Followed { path, text, abac, types });
                Ok(Authorization { modes, file })
            }
        }
    }

    fn has_modes(&self) -> bool {
        self.authorization_mode.is_some()
            || self.authorization_webhook_config_file.is_some()
            || self.authorization_webhook_version.is_some()
            || self.authorization_webhook_cache_authorized_ttl.is_some()
            || self.authorization_webhook_cache_unauthorized_ttl.is_some()
    }

    fn modes(&self, abac: Option<Arc<Abac>>) -> Result<AuthorizationModes> {
        let text = self.authorization_mode.as_deref().unwrap_or("Node,RBAC");
        let names: Vec<&str> = text.split(',').map(str::trim).collect();
        let has = |name: &str| names.contains(&name);
        if names.iter().enumerate().any(|(at, name)| names[..at].contains(name)) {
            bail!("authorization-mode {names:?} has mode specified more than once");
        }
        if abac.is_some() && !has("ABAC") {
            bail!("cannot specify --authorization-policy-file without mode ABAC");
        }
        if self.authorization_webhook_config_file.is_some() && !has("Webhook") {
            bail!("cannot specify --authorization-webhook-config-file without mode Webhook");
        }
        let all = names.iter().map(|name| self.mode(name)).collect::<Result<_>>()?;
        modes(AuthorizationConfiguration(all), abac.as_ref())
    }

    fn mode(&self, name: &str) -> Result<AuthorizerType> {
        Ok(match name {
            "AlwaysAllow" => AuthorizerType::AlwaysAllow,
            "AlwaysDeny" => AuthorizerType::AlwaysDeny,
            "ABAC" => AuthorizerType::Abac,
            "Node" => AuthorizerType::Node,
            "RBAC" => AuthorizerType::Rbac,
            "Webhook" => {
                let Some(file) = &self.authorization_webhook_config_file else {
                    bail!("authorization-mode Webhook's authorization config file not passed");
                };
                let version = self.authorization_webhook_version.as_deref().unwrap_or("v1beta1");
                let allowing = self.authorization_webhook_cache_authorized_ttl;
                let others = self.authorization_webhook_cache_unauthorized_ttl;
                let lives = (
                    allowing.unwrap_or(Duration::from_secs(300)),
                    others.unwrap_or(Duration::from_secs(30)),
                );
                let settings = WebhookSettings::of_flags(file.clone(), version, lives);
                AuthorizerType::Webhook { name: "default".into(), settings: Box::new(settings) }
            }
            other => bail!("authorization-mode {other:?} is not a valid mode"),
        })
    }
}

fn abac(path: &Path) -> Result<Abac> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Abac::parse(&text).with_context(|| format!("--authorization-policy-file: {}", path.display()))
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path)
        .with_context(|| format!("--authorization-config: read {}", path.display()))
}

fn modes(
    configuration: AuthorizationConfiguration,
    abac: Option<&Arc<Abac>>,
) -> Result<AuthorizationModes> {
    let mode = |kind: AuthorizerType| -> Result<Mode> {
        Ok(match kind {
            AuthorizerType::AlwaysAllow => Mode::AlwaysAllow,
            AuthorizerType::AlwaysDeny => Mode::AlwaysDeny,
            AuthorizerType::Node => Mode::Node,
            AuthorizerType::Rbac => Mode::Rbac,
            AuthorizerType::Abac => {
                let why = "authorization-mode ABAC's authorization policy file not passed";
                Mode::Abac(abac.context(why)?.clone())
            }
            AuthorizerType::Webhook { name, settings } => {
                let reviews = hooks::access(&settings)
                    .with_context(|| format!("authorization webhook {name:?}"))?;
                Mode::Webhook(Arc::new(ReviewWebhook::new(*settings, reviews)))
            }
        })
    };
    Ok(AuthorizationModes(configuration.0.into_iter().map(mode).collect::<Result<_>>()?))
}

impl Followed {
    /// Applies changes of the file. One that cannot be used changes nothing.
    pub(crate) async fn follow(mut self, server: Server) {
        loop {
            tokio::time::sleep(LOOK).await;
            let Ok(now) = read(&self.path) else {
                let path = self.path.display();
                tracing::error!(%path, "the authorization configuration cannot be read");
                continue;
            };
            if now == self.text {
                continue;
            }
            self.text = now;
            let modes = self.modes();
            AUTHORIZATION.record(modes.is_ok());
            match modes {
                Ok(modes) => {
                    server.change_authorization(modes);
                    tracing::info!("the authorization configuration was reloaded");
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::error!(error, "the former authorization configuration stays");
                }
            }
        }
    }

    fn modes(&self) -> Result<AuthorizationModes> {
        let read = AuthorizationConfiguration::parse(&self.text, &self.types)?;
        let stays = |kind: &AuthorizerType| match kind {
            // Upstream makes these two anew, the others once.
            AuthorizerType::AlwaysAllow | AuthorizerType::AlwaysDeny => true,
            AuthorizerType::Webhook { .. } => true,
            kind => self.types.contains(&kind.name()),
        };
        if let Some(new) = read.0.iter().find(|kind| !stays(kind)) {
            let name = new.name();
            bail!(
                "authorizer type {name} is not allowed if it was not enabled at initial server startup"
            );
        }
        modes(read, self.abac.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        flags: AuthorizationFlags,
    }

    fn read(args: &[&str]) -> Result<Authorization> {
        Cli::parse_from(std::iter::once(&"x").chain(args)).flags.read()
    }

    #[test]
    fn modes_are_asked_in_the_order_given() {
        let read = read(&["--authorization-mode=RBAC,Node,AlwaysDeny"]).expect("read");
        assert!(matches!(read.modes.0[..], [Mode::Rbac, Mode::Node, Mode::AlwaysDeny]));
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let path = file.path().display();
        let policy = format!("--authorization-policy-file={path}");
        let webhook = format!("--authorization-webhook-config-file={path}");
        let config = format!("--authorization-config={path}");
        let cases: [(&[&str], &str); 9] = [
            (&["--authorization-mode=Magic"], "authorization-mode \"Magic\" is not a valid mode"),
            (&["--authorization-mode=RBAC,RBAC"], "has mode specified more than once"),
            (&["--authorization-mode=ABAC"], "ABAC's authorization policy file not passed"),
            (&["--authorization-mode=Webhook"], "Webhook's authorization config file not passed"),
            (&[&policy], "cannot specify --authorization-policy-file without mode ABAC"),
            (
                &[&webhook],
                "cannot specify --authorization-webhook-config-file without mode Webhook",
            ),
            (
                &[&webhook, "--authorization-mode=Webhook", "--authorization-webhook-version=v2"],
                "unsupported webhook authorizer version \"v2\", supported versions are \"v1\", \"v1beta1\"",
            ),
            (
                &[&config, "--authorization-mode=RBAC"],
                "--authorization-config can not be specified when --authorization-mode",
            ),
            (&[&config], "empty config data"),
        ];
        for (args, why) in cases {
            let told = format!("{:#}", read(args).err().expect("refused"));
            assert!(told.contains(why), "{args:?}: {told}");
        }
    }

    #[test]
    fn a_changed_file_brings_no_authorizer_that_was_not_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n";
        let write = |rest: &str| std::fs::write(&path, format!("{head}{rest}")).expect("written");
        write("authorizers: [{type: RBAC, name: rbac}]");
        let flag = format!("--authorization-config={}", path.display());
        let (_, followed) = read(&[&flag]).expect("read").into_parts();
        let mut followed = followed.expect("a file");
        let mut change = |rest: &str| {
            followed.text = format!("{head}{rest}");
            followed.modes().map(|modes| modes.0.len()).map_err(|e| e.to_string())
        };
        let both =
            "authorizers: [{type: AlwaysAllow, name: alwaysallow}, {type: RBAC, name: rbac}]";
        assert_eq!(change(both), Ok(2));
        let refused = change("authorizers: [{type: AlwaysAllow, name: alwaysallow}]");
        assert_eq!(refused, Err("missing required types: [RBAC]".into()));
        let refused = change("authorizers: [{type: RBAC, name: rbac}, {type: Node, name: node}]");
        assert!(refused.expect_err("refused").contains("authorizer type Node is not allowed"));
    }

    #[test]
    fn changes_of_the_file_are_counted() {
        let before = AUTHORIZATION.count("failure");
        AUTHORIZATION.record(false);
        AUTHORIZATION.record(true);
        assert_eq!(AUTHORIZATION.count("failure"), before + 1);
        let told = crate::config_reloads::figures();
        for name in [
            "apiserver_authorization_config_controller_automatic_reloads_total",
            "apiserver_authorization_config_controller_automatic_reload_last_timestamp_seconds",
        ] {
            for status in ["success", "failure"] {
                let is = |line: &&str| line.starts_with(name) && line.contains(status);
                let line = told.lines().find(is).expect("told");
                assert!(line.contains("apiserver_id_hash=\"sha256:"), "{line}");
            }
        }
    }
}
