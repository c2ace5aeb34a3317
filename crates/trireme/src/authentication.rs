//! Who may be somebody: from flags and files to an authenticator, which follows its file.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use apiserver::{
    Anonymous, AuthenticationConfiguration, Authenticator, Fetch, FrontProxies, TokenReviews,
};
use client::Tasks;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::config_reloads::AUTHENTICATION;
use crate::hooks;

/// Largest document of an issuer that is read, in bytes.
const DOCUMENT_MAX: usize = 1 << 20;
/// Longest wait for one (upstream's client).
const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two looks at the configuration's file (upstream looks every minute, and when told).
const LOOK: Duration = Duration::from_secs(10);

/// What the flags say.
pub(crate) struct Authentication {
    pub(crate) token_file: Option<PathBuf>,
    /// Secrets of `kube-system` are tokens with which nodes join.
    pub(crate) bootstrap_tokens: bool,
    pub(crate) anonymous: Anonymous,
    pub(crate) configuration: Issuers,
    /// Who knows tokens that nobody here does, and how long answers are kept.
    pub(crate) webhook: Option<(Arc<dyn TokenReviews>, Duration)>,
    /// Proxies in front of the server, which say in headers who asks.
    pub(crate) front_proxies: Option<FrontProxies>,
}

/// Where the issuers of foreign tokens are told.
#[derive(Debug)]
pub(crate) enum Issuers {
    None,
    /// A file that is followed.
    File(PathBuf),
    /// A configuration, made of flags.
    Text(String),
}

impl Authentication {
    /// Those of a cluster in one command: as kubeadm sets it up.
    pub(crate) fn usual() -> Authentication {
        Authentication {
            token_file: None,
            bootstrap_tokens: true,
            anonymous: Anonymous::Everywhere,
            configuration: Issuers::None,
            webhook: None,
            front_proxies: None,
        }
    }

    /// The authenticator; `tasks` keep it up to date.
    pub(crate) async fn authenticator(
        self,
        tokens: Arc<pki::TokenIssuer>,
        tasks: &Tasks,
    ) -> Result<Arc<Authenticator>> {
        let mut made = Authenticator::new(tokens).with_anonymous(self.anonymous);
        if let Some(path) = &self.token_file {
            made = made.with_token_file(path)?;
        }
        if self.bootstrap_tokens {
            made = made.with_bootstrap_tokens();
        }
        if let Some(front_proxies) = self.front_proxies {
            made = made.with_front_proxies(front_proxies);
        }
        if let Some((reviews, life)) = self.webhook {
            made = made.with_webhook(reviews, life);
        }
        if let Issuers::None = self.configuration {
            return Ok(Arc::new(made));
        }
        let made = Arc::new(made.with_issuers(Arc::new(Documents)));
        match self.configuration {
            Issuers::None => {}
            Issuers::Text(text) => configure(&made, &text).await.context("--oidc-*")?,
            Issuers::File(path) => {
                let text = read(&path)?;
                configure(&made, &text)
                    .await
                    .with_context(|| format!("--authentication-config: {}", path.display()))?;
                tasks.spawn("authentication configuration", follow(made.clone(), path, text));
            }
        }
        let own = made.clone();
        tasks.spawn("issuers of tokens", async move { own.find_issuers().await });
        Ok(made)
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path)
        .with_context(|| format!("--authentication-config: read {}", path.display()))
}

async fn configure(authenticator: &Authenticator, text: &str) -> Result<()> {
    let own = [authenticator.own_issuer()];
    authenticator.configure(AuthenticationConfiguration::parse(text, &own)?).await;
    Ok(())
}

/// Applies changes of the file. One that cannot be used changes nothing.
async fn follow(authenticator: Arc<Authenticator>, path: PathBuf, mut text: String) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Ok(now) = read(&path) else {
            tracing::error!(path = %path.display(), "the authentication configuration cannot be read");
            continue;
        };
        if now == text {
            continue;
        }
        text = now;
        let outcome = configure(&authenticator, &text).await;
        match &outcome {
            Ok(()) => tracing::info!("the authentication configuration was reloaded"),
            Err(error) => tracing::error!(%error, "the former authentication configuration stays"),
        }
        AUTHENTICATION.record(outcome.is_ok());
    }
}

/// Documents of issuers, as this process reaches them.
struct Documents;

impl Fetch for Documents {
    fn get<'a>(
        &'a self,
        url: &'a str,
        authorities: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send + 'a>> {
        Box::pin(async move {
            let mut roots = RootCertStore::empty();
            match authorities {
                "" => roots = outgoing::machine_roots(),
                pem => {
                    let all = CertificateDer::pem_slice_iter(pem.as_bytes()).flatten();
                    roots.add_parsable_certificates(all);
                }
            }
            let read = outgoing::document(
                url,
                outgoing::Trust::Authorities(roots),
                DOCUMENT_MAX,
                DOCUMENT_TIMEOUT,
            )
            .await;
            read.map(|bytes| bytes.to_vec())
        })
    }
}

/// The flags of `kube-apiserver`.
#[derive(Debug, clap::Args)]
pub(crate) struct AuthenticationFlags {
    /// CSV of token, user, uid and quoted groups.
    #[arg(long)]
    token_auth_file: Option<PathBuf>,
    /// Accept tokens that are Secrets in kube-system, with which nodes join.
    #[arg(long)]
    enable_bootstrap_token_auth: bool,
    /// Let requests without credentials in as nobody, whom RBAC lets read health and version.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    anonymous_auth: Option<bool>,
    /// An AuthenticationConfiguration: issuers of tokens, and where nobody may ask. It is followed.
    #[arg(long)]
    authentication_config: Option<PathBuf>,
    /// A kubeconfig of a server that knows tokens which nobody here does; it is asked by TokenReviews.
    #[arg(long)]
    authentication_token_webhook_config_file: Option<PathBuf>,
    /// Version of those TokenReviews: v1 or v1beta1.
    #[arg(long, default_value = "v1beta1")]
    authentication_token_webhook_version: String,
    /// How long its answers are kept, as Go writes durations.
    #[arg(long, default_value = "2m0s", value_parser = crate::durations::go_duration)]
    authentication_token_webhook_cache_ttl: Duration,
    /// Issuer of OpenID tokens (https).
    #[arg(long, requires = "oidc_client_id")]
    oidc_issuer_url: Option<String>,
    /// Audience that OpenID tokens must be for.
    #[arg(long, requires = "oidc_issuer_url")]
    oidc_client_id: Option<String>,
    /// PEM of the authorities that signed the issuer's certificate; the machine's when absent.
    #[arg(long, requires = "oidc_issuer_url")]
    oidc_ca_file: Option<PathBuf>,
    /// Claim that is the user's name.
    #[arg(long, default_value = "sub")]
    oidc_username_claim: String,
    /// What names begin with; `-` is nothing; the issuer and `#` when absent, unless the claim is email.
    #[arg(long)]
    oidc_username_prefix: Option<String>,
    /// Claim that is the user's groups.
    #[arg(long)]
    oidc_groups_claim: Option<String>,
    /// What groups begin with.
    #[arg(long, default_value = "")]
    oidc_groups_prefix: String,
    /// `claim=value` that tokens must have; may be given several times.
    #[arg(long)]
    oidc_required_claim: Vec<String>,
}

impl AuthenticationFlags {
    pub(crate) fn read(self) -> Result<Authentication> {
        let configuration = match (&self.authentication_config, &self.oidc_issuer_url) {
            (Some(_), Some(_)) => {
                bail!("--authentication-config and --oidc-* flags are mutually exclusive")
            }
            (Some(path), None) => Issuers::File(path.clone()),
            (None, Some(url)) => Issuers::Text(self.oidc(url)?),
            (None, None) => Issuers::None,
        };
        if let (Issuers::File(path), Some(_)) = (&configuration, self.anonymous_auth)
            && AuthenticationConfiguration::parse(&read(path)?, &[])?.has_anonymous()
        {
            bail!(
                "--anonymous-auth cannot be set when --authentication-config has anonymous: one of them decides"
            );
        }
        let life = self.authentication_token_webhook_cache_ttl;
        let version = self.authentication_token_webhook_version.as_str();
        let webhook = self.authentication_token_webhook_config_file.as_deref();
        let webhook = webhook.map(|file| hooks::tokens(file, version)).transpose()?;
        let webhook = webhook.map(|reviews| (reviews, life));
        let anonymous = match self.anonymous_auth {
            Some(false) => Anonymous::Nowhere,
            _ => Anonymous::Everywhere,
        };
        Ok(Authentication {
            token_file: self.token_auth_file,
            bootstrap_tokens: self.enable_bootstrap_token_auth,
            anonymous,
            configuration,
            webhook,
            front_proxies: None,
        })
    }

    /// The configuration that the flags stand for (`ToAuthenticationConfig`).
    fn oidc(&self, url: &str) -> Result<String> {
        let prefix = match (self.oidc_username_prefix.as_deref(), self.oidc_username_claim.as_str())
        {
            (Some("-"), _) | (None | Some(""), "email") => String::new(),
            (Some(prefix), _) if !prefix.is_empty() => prefix.to_owned(),
            _ => format!("{url}#"),
        };
        let authority = self.oidc_ca_file.as_deref().map(|path| {
            std::fs::read_to_string(path)
                .with_context(|| format!("--oidc-ca-file: read {}", path.display()))
        });
        let mut issuer = serde_json::json!({
            "issuer": {
                "url": url, "audiences": [self.oidc_client_id],
                "certificateAuthority": authority.transpose()?.unwrap_or_default(),
            },
            "claimMappings": {"username": {"claim": self.oidc_username_claim, "prefix": prefix}},
        });
        if let Some(claim) = &self.oidc_groups_claim {
            issuer["claimMappings"]["groups"] =
                serde_json::json!({"claim": claim, "prefix": self.oidc_groups_prefix});
        }
        let mut rules = Vec::new();
        for required in self.oidc_required_claim.iter().flat_map(|all| all.split(',')) {
            let Some((claim, value)) = required.split_once('=') else {
                bail!("--oidc-required-claim: {required:?} is not claim=value");
            };
            rules.push(serde_json::json!({"claim": claim, "requiredValue": value}));
        }
        issuer["claimValidationRules"] = rules.into();
        let file = serde_json::json!({
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": [issuer],
        });
        Ok(file.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";

    #[tokio::test(start_paused = true)]
    async fn changes_of_the_file_are_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("authentication.yaml");
        let write = |rest: &str| std::fs::write(&path, format!("{HEAD}{rest}")).expect("written");
        write("anonymous: {enabled: true}\n");
        let key = pki::TokenIssuer::generate_key().expect("a key");
        let tokens =
            pki::TokenIssuer::new("https://kubernetes.default.svc", &key).expect("an issuer");
        let made = Arc::new(Authenticator::new(Arc::new(tokens)).with_issuers(Arc::new(Documents)));
        let text = read(&path).expect("read");
        let following = tokio::spawn(follow(made, path.clone(), text));
        let look = || tokio::time::sleep(LOOK * 2);
        let counts = || (AUTHENTICATION.count("success"), AUTHENTICATION.count("failure"));
        look().await;
        assert_eq!(counts(), (0, 0), "nothing changed");
        write("anonymous: {enabled: perhaps}\n");
        look().await;
        assert_eq!(counts(), (0, 1));
        write("anonymous: {enabled: false}\n");
        look().await;
        assert_eq!(counts(), (1, 1));
        let told = crate::config_reloads::figures();
        for name in [
            "apiserver_authentication_config_controller_automatic_reloads_total{",
            "apiserver_authentication_config_controller_automatic_reload_last_timestamp_seconds{",
        ] {
            assert_eq!(told.lines().filter(|line| line.starts_with(name)).count(), 2, "{told}");
        }
        following.abort();
    }
}
