//! Servers that are asked or told: tokens and audit events, by kubeconfigs.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use apiserver::TokenReviews;
use apiserver::audit::Deliver;
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
