//! Servers that are asked or told: tokens and audit events, by kubeconfigs.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use apiserver::audit::Deliver;
use apiserver::{ReviewFailure, SubjectAccessReviews, TokenReviews, WebhookSettings};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use webhook::{BoxFuture, Client, Endpoint, Services};

use crate::kubeconfig;

/// Longest wait for an answer (upstream's clients of webhooks).
const TIMEOUT: Duration = Duration::from_secs(30);

/// A kubeconfig names servers, not services.
struct NoServices;

impl Services for NoServices {
    fn connect<'a>(
        &'a self,
        (namespace, name): (&'a str, &'a str),
        _: u16,
    ) -> BoxFuture<'a, Result<TcpStream, String>> {
        let why = format!("service {namespace}/{name}: services are not reached from here");
        Box::pin(async move { Err(why) })
    }
}

fn client(file: &Path) -> Result<Client> {
    let endpoint = Endpoint::of_kubeconfig(kubeconfig::load(file)?).map_err(anyhow::Error::msg)?;
    Client::new(endpoint, Arc::new(NoServices)).map_err(anyhow::Error::msg)
}

/// Takes lists of audit events.
pub(crate) fn audit(file: &Path) -> Result<Arc<dyn Deliver>> {
    let client =
        client(file).with_context(|| format!("--audit-webhook-config-file: {}", file.display()))?;
    Ok(Arc::new(Events(client)))
}

struct Events(Client);

impl Deliver for Events {
    fn deliver(
        &self,
        list: String,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>> {
        Box::pin(
            async move { self.0.notify(list, TIMEOUT).await.map_err(|failure| failure.message) },
        )
    }
}

/// Knows tokens.
pub(crate) fn tokens(file: &Path, version: &str) -> Result<Arc<dyn TokenReviews>> {
    if !matches!(version, "v1" | "v1beta1") {
        bail!(
            "--authentication-token-webhook-version: {version:?} is not known; use v1 or v1beta1"
        );
    }
    let client = client(file).with_context(|| {
        format!("--authentication-token-webhook-config-file: {}", file.display())
    })?;
    Ok(Arc::new(Reviews { client, version: format!("authentication.k8s.io/{version}") }))
}

/// Knows what may be done.
pub(crate) fn access(settings: &WebhookSettings) -> Result<Arc<dyn SubjectAccessReviews>> {
    let version = settings.version.as_str();
    if !matches!(version, "v1" | "v1beta1") {
        bail!(
            "unsupported webhook authorizer version {version:?}, supported versions are \"v1\", \"v1beta1\""
        );
    }
    let file = &settings.kubeconfig;
    let client = client(file).with_context(|| file.display().to_string())?;
    let (is_old, timeout) = (version == "v1beta1", settings.timeout);
    Ok(Arc::new(AccessReviews { client, is_old, timeout }))
}

struct AccessReviews {
    client: Client,
    /// Version v1beta1, in which groups are named `group`.
    is_old: bool,
    timeout: Duration,
}

impl SubjectAccessReviews for AccessReviews {
    fn review<'a>(
        &'a self,
        spec: &'a Value,
    ) -> Pin<Box<dyn Future<Output = Result<Value, ReviewFailure>> + Send + 'a>> {
        let mut spec = spec.clone();
        if self.is_old
            && let Some(spec) = spec.as_object_mut()
            && let Some(groups) = spec.remove("groups")
        {
            spec.insert("group".into(), groups);
        }
        let version = if self.is_old { "v1beta1" } else { "v1" };
        let review = json!({
            "kind": "SubjectAccessReview", "apiVersion": format!("authorization.k8s.io/{version}"),
            "metadata": {"creationTimestamp": null}, "spec": spec, "status": {"allowed": false},
        });
        Box::pin(async move {
            let answer = self.client.post(&review, self.timeout).await;
            let failed = |failure: webhook::Failure| ReviewFailure {
                is_passing: is_passing(&failure),
                message: failure.message,
            };
            Ok(answer.map_err(failed)?["status"].take())
        })
    }
}

/// Whether asking again may help (apiserver's `webhook.DefaultShouldRetry`).
fn is_passing(failure: &webhook::Failure) -> bool {
    match failure.code {
        Some(code) => matches!(code, 429 | 500 | 504),
        None => ["connection reset by peer", "context deadline exceeded", "timeout"]
            .iter()
            .any(|why| failure.message.contains(why)),
    }
}

struct Reviews {
    client: Client,
    version: String,
}

impl TokenReviews for Reviews {
    fn review<'a>(
        &'a self,
        token: &'a str,
        audiences: &'a [String],
    ) -> Pin<Box<dyn Future<Output = Result<Value, String>> + Send + 'a>> {
        let review = json!({
            "kind": "TokenReview", "apiVersion": self.version, "metadata": {"creationTimestamp": null},
            "spec": {"token": token, "audiences": audiences}, "status": {"user": {}},
        });
        Box::pin(async move {
            let answer = self.client.post(&review, TIMEOUT).await;
            Ok(answer.map_err(|failure| failure.message)?["status"].take())
        })
    }
}
