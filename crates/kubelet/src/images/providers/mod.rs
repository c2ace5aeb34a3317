//! Credential provider plugins: programs on the node that know logins of registries
//! (`--image-credential-provider-config`).
//!
//! A plugin is asked for images that its patterns match; what it says is kept for as long as it says, for the
//! image, its registry, or all images. One that works with service accounts gets a token of the pod's account
//! (`KubeletServiceAccountTokenForCredentialProviders`), and its answers are that account's.

mod cache;
mod config;
mod exec;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client::Client;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use prometheus::{HistogramVec, IntCounterVec};
use ring::digest;
use runtime::cri::AuthConfig;
use tokio::time::Instant;

use super::keyring::{Keyring, Login, Origin, Source, fits};
use crate::spec::{name_of, namespace_of, uid_of};
use cache::{AccountKey, Cache};
use config::TokenAttributes;
use exec::{Answer, Program, Question};

/// Time for the API to give an account, or a token.
const FETCH_MAX: Duration = Duration::from_secs(30);
/// A token is used for this long: the shortest that the API gives lives for ten minutes.
const TOKEN_USE: Duration = Duration::from_secs(5 * 60);
/// Prometheus' own (upstream's `DefBuckets`), in seconds.
const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Where plugins are configured, and where their programs lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderFiles {
    /// A file, or a folder of them (`--image-credential-provider-config`).
    pub config: PathBuf,
    /// `--image-credential-provider-bin-dir`.
    pub bin_dir: PathBuf,
}

struct Figures {
    registry: telemetry::Registry,
    errors: IntCounterVec,
    took: HistogramVec,
    hash: String,
}

struct Provider {
    match_images: Vec<String>,
    default_duration: Duration,
    attributes: Option<TokenAttributes>,
    program: Program,
    cache: Mutex<Cache>,
    /// One question at a time about an image, for an account.
    asking: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    tokens: Mutex<HashMap<AccountKey, (String, Instant)>>,
}

/// All plugins of the node.
#[derive(Default)]
pub(crate) struct Providers {
    all: Vec<Provider>,
    figures: Option<Figures>,
}

/// The account that a question is asked for.
#[derive(Debug, Clone, Default)]
struct Account {
    uid: String,
    annotations: BTreeMap<String, String>,
    token: String,
    key: AccountKey,
}

fn hash(text: &str) -> String {
    let hex = |text: String, byte: &u8| format!("{text}{byte:02x}");
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    hash.as_ref().iter().fold("sha256:".to_owned(), hex)
}

/// Whether a program can be run at this path.
fn check_program(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt as _;
    let shown = path.display();
    match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Err(format!("plugin binary executable {shown} did not exist"))
        }
        Err(e) => Err(format!("error inspecting binary executable {shown}: {e}")),
        Ok(meta) if meta.is_file() && meta.permissions().mode() & 0o111 != 0 => Ok(()),
        Ok(_) => Err(format!("error inspecting binary executable {shown}: permission denied")),
    }
}

impl Providers {
    /// Reads and checks the configuration; refuses one that breaks the rules, and programs that are not there.
    pub(crate) fn load(files: Option<&ProviderFiles>) -> Result<Providers, String> {
        let Some(files) = files else { return Ok(Providers::default()) };
        let folder = files.bin_dir.display();
        std::fs::metadata(&files.bin_dir).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                format!("plugin binary directory {folder} did not exist")
            }
            _ => format!("error inspecting binary directory {folder}: {e}"),
        })?;
        let (found, hash) = config::load(&files.config)?;
        let mut all = Vec::with_capacity(found.len());
        for provider in found {
            let path = files.bin_dir.join(&provider.name);
            check_program(&path)?;
            all.push(Provider {
                default_duration: provider.cache_duration(),
                match_images: provider.match_images,
                attributes: provider.token_attributes,
                program: Program {
                    name: provider.name,
                    path,
                    api_version: provider.api_version,
                    args: provider.args,
                    env: provider.env,
                },
                cache: Mutex::default(),
                asking: Mutex::default(),
                tokens: Mutex::default(),
            });
        }
        Ok(Providers { all, figures: Some(Figures::new(hash)) })
    }

    /// In Prometheus' text form.
    pub(crate) fn metrics(&self) -> String {
        let Some(figures) = &self.figures else { return String::new() };
        let info = (
            "kubelet_credential_provider_config_info",
            "gauge",
            "Information about the last applied credential provider configuration with hash as label",
        );
        figures.registry.families()
            + &telemetry::family(info, [([("hash", figures.hash.as_str())], 1.0)])
    }

    /// All logins that plugins have for the repository. What fails is told in the log: other logins may do.
    pub(super) async fn logins(&self, client: &Client, pod: &Pod, repository: &str) -> Vec<Login> {
        let mut keyring = Keyring::default();
        for provider in &self.all {
            match self.provide(provider, client, pod, repository).await {
                Ok((answers, source)) => {
                    for (place, (username, password)) in answers {
                        let auth = AuthConfig {
                            username,
                            password,
                            server_address: place.clone(),
                            ..AuthConfig::default()
                        };
                        keyring.insert(&place, Login { auth, source: source.clone() });
                    }
                }
                Err(error) => {
                    let provider = &provider.program.name;
                    tracing::error!(provider, repository, error, "no credentials for an image");
                }
            }
        }
        keyring.lookup(repository)
    }

    async fn provide(
        &self,
        provider: &Provider,
        client: &Client,
        pod: &Pod,
        repository: &str,
    ) -> Result<(cache::Credentials, Option<Source>), String> {
        if !provider.match_images.iter().any(|pattern| fits(pattern, repository)) {
            return Ok(Default::default());
        }
        let Some(account) = provider.account(client, pod).await? else {
            return Ok(Default::default());
        };
        let source = (!account.uid.is_empty()).then(|| Source {
            uid: account.uid.clone(),
            namespace: namespace_of(pod).to_owned(),
            name: account_name(pod).to_owned(),
            origin: Origin::ServiceAccount,
        });
        if let Some(known) = provider.cached(repository, &account) {
            return Ok((known, source));
        }
        let _alone = provider.alone(repository, &account).await;
        if let Some(known) = provider.cached(repository, &account) {
            return Ok((known, source));
        }
        let question = Question {
            image: repository.to_owned(),
            token: account.token.clone(),
            annotations: account.annotations.clone(),
        };
        let answer = self.ask(provider, &question).await.map_err(|why| {
            format!("failed to get credential from external registry credential provider: {why}")
        })?;
        Ok((provider.keep(repository, &account, answer)?, source))
    }

    async fn ask(&self, provider: &Provider, question: &Question) -> Result<Answer, String> {
        let begun = Instant::now();
        let answer = provider.program.ask(question).await;
        if let Some(figures) = &self.figures {
            let name = &[provider.program.name.as_str()];
            figures.took.with_label_values(name).observe(begun.elapsed().as_secs_f64());
            let execing = |why: &String| why.starts_with("error execing");
            if answer.as_ref().err().is_some_and(execing) {
                figures.errors.with_label_values(name).inc();
            }
        }
        answer
    }
}

impl Figures {
    fn new(hash: String) -> Figures {
        let registry = telemetry::Registry::default();
        let errors = registry.counters(
            "kubelet_credential_provider_plugin_errors_total",
            "Number of errors from credential provider plugin",
            &["plugin_name"],
        );
        let took = registry.histograms(
            "kubelet_credential_provider_plugin_duration",
            "Duration of execution in seconds for credential provider plugin",
            &["plugin_name"],
            &BUCKETS,
        );
        Figures { registry, errors, took, hash }
    }
}

fn account_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Provider {
    /// The pod's account, as far as the plugin works with accounts; `None`: it is not to be asked.
    async fn account(&self, client: &Client, pod: &Pod) -> Result<Option<Account>, String> {
        let Some(attributes) = &self.attributes else { return Ok(Some(Account::default())) };
        let name = account_name(pod);
        if name.is_empty() {
            let needed = attributes.require_service_account == Some(true);
            return Ok((!needed).then(Account::default));
        }
        let failed = |why: String| format!("failed to get service account: {why}");
        let found = client.get::<ServiceAccount>(namespace_of(pod), name);
        let found = tokio::time::timeout(FETCH_MAX, found).await;
        let found = found.map_err(|_| failed("context deadline exceeded".to_owned()))?;
        let found = found.map_err(|e| failed(e.to_string()))?;
        let given = found.metadata.annotations.unwrap_or_default();
        let mut annotations = BTreeMap::new();
        for key in &attributes.required_service_account_annotation_keys {
            let Some(value) = given.get(key) else {
                // How a workload says that it has no part in this.
                tracing::debug!(key, account = name, "required annotation not found");
                return Ok(None);
            };
            annotations.insert(key.clone(), value.clone());
        }
        for key in &attributes.optional_service_account_annotation_keys {
            annotations.extend(given.get(key).map(|value| (key.clone(), value.clone())));
        }
        let uid = found.metadata.uid.unwrap_or_default();
        let mut key = AccountKey {
            namespace: namespace_of(pod).to_owned(),
            name: name.to_owned(),
            uid: uid.clone(),
            annotations: annotations.clone(),
            token: uid_of(pod).to_owned(),
        };
        let audience = &attributes.service_account_token_audience;
        let token = self.token(client, pod, &key, audience).await;
        let token = token.map_err(|why| format!("failed to get service account token: {why}"))?;
        key.token = match attributes.cache_type.as_str() {
            "Token" => hash(&token),
            _ => String::new(),
        };
        Ok(Some(Account { uid, annotations, token, key }))
    }

    /// A token of the account, bound to the pod; `key.token` is the pod's uid.
    async fn token(
        &self,
        client: &Client,
        pod: &Pod,
        key: &AccountKey,
        audience: &str,
    ) -> Result<String, String> {
        let now = Instant::now();
        {
            let mut known = lock(&self.tokens);
            known.retain(|_, (_, until)| *until > now);
            if let Some((token, _)) = known.get(key) {
                return Ok(token.clone());
            }
        }
        let mut request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(vec![audience.to_owned()]),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: Some(name_of(pod).to_owned()),
                    uid: Some(uid_of(pod).to_owned()),
                }),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        request.metadata.uid = Some(key.uid.clone());
        let asked = client.post_subresource::<ServiceAccount, _, TokenRequest>(
            &key.namespace,
            &key.name,
            "token",
            &request,
        );
        let answer = tokio::time::timeout(FETCH_MAX, asked).await;
        let answer = answer.map_err(|_| "context deadline exceeded".to_owned())?;
        let answer = answer.map_err(|e| e.to_string())?;
        let token = answer.status.and_then(|status| status.token);
        let token = token.ok_or_else(|| "the answer has none".to_owned())?;
        lock(&self.tokens).insert(key.clone(), (token.clone(), now + TOKEN_USE));
        Ok(token)
    }

    fn cached(&self, repository: &str, account: &Account) -> Option<cache::Credentials> {
        lock(&self.cache).get(repository, &account.key)
    }

    /// Waits until nobody else asks about the image for the account.
    async fn alone(&self, repository: &str, account: &Account) -> tokio::sync::OwnedMutexGuard<()> {
        let key = format!("{repository}\n{:?}\n{}", account.key, hash(&account.token));
        let mutex = {
            let mut all = lock(&self.asking);
            all.retain(|_, mutex| Arc::strong_count(mutex) > 1);
            all.entry(key).or_default().clone()
        };
        mutex.lock_owned().await
    }

    /// Takes over an answer.
    fn keep(
        &self,
        repository: &str,
        account: &Account,
        answer: Answer,
    ) -> Result<cache::Credentials, String> {
        let by_account = self.attributes.as_ref().is_some_and(|a| a.cache_type != "Token");
        let echoes = |(_, password): &(String, String)| *password == account.token;
        if by_account && !account.token.is_empty() && answer.auth.values().any(echoes) {
            return Err("credential provider plugin returned the service account token as the password which is not allowed when service account cache type is not set to 'Token'".to_owned());
        }
        let duration = answer.duration.unwrap_or(self.default_duration);
        if !duration.is_zero() {
            let (key, auth) = (answer.key, answer.auth.clone());
            lock(&self.cache).put(repository, key, &account.key, auth, duration);
        }
        Ok(answer.auth)
    }
}

#[cfg(test)]
mod tests;
