//! Service account tokens without an end: since when their use is tracked, and when each was last used
//! (KEP-2799). The legacy token cleaner of the controllers decides by both.

use std::time::Duration;

use auth::LegacyUse;
use client::{Client, Error, Request, Tasks};
use http::Method;
use jiff::Timestamp;
use jiff::civil::Date;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::legacy_tokens::day;
use crate::local::Local;
use crate::server::Server;

const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const NAME: &str = "kube-apiserver-legacy-service-account-token-tracking";
const SINCE: &str = "since";
/// Between two creations of the ConfigMap, so that servers of which one does not track do not fight.
const CREATIONS: Duration = Duration::from_secs(30 * 60);
/// Between two tries after a failure.
const RETRY: Duration = Duration::from_secs(5);

async fn note(client: Client, used: LegacyUse) {
    if let Err(error) = label(&client, &used).await {
        let (namespace, name) = &used.secret;
        tracing::warn!(%error, namespace, name, "the use of a token was not noted");
    }
}

async fn label(client: &Client, used: &LegacyUse) -> Result<(), Error> {
    let (namespace, name) = &used.secret;
    let today = day(Timestamp::now()).to_string();
    let patch = json!({"metadata": {"uid": used.secret_uid, "labels": {LAST_USED: today}}});
    let request = Request {
        method: Method::PATCH,
        target: format!("/api/v1/namespaces/{namespace}/secrets/{name}"),
        content_type: Some("application/merge-patch+json"),
        body: Local::body(&patch),
    };
    match client.call(request).await {
        // It went, or another took its name.
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        other => other.map(drop),
    }
}

impl Server {
    /// Says since when use is tracked, and notes each use.
    pub(super) async fn track_legacy_tokens(
        &self,
        client: Client,
        tasks: &Tasks,
    ) -> Result<(), Error> {
        let configs = self.parts.resources.collection_of("", "v1", "configmaps");
        let mut made = None;
        if configs.get(&format!("kube-system/{NAME}")).is_none() {
            create(&client).await?;
            made = Some(Instant::now());
        }
        let (server, labels) = (self.clone(), client.clone());
        tasks.spawn("use of legacy tokens", async move {
            let note = |used| note(labels.clone(), used);
            server.parts.legacy_tokens.note_by(note).await;
        });
        let server = self.clone();
        tasks.spawn("legacy token tracking", async move { server.keep_since(&client, made).await });
        Ok(())
    }

    /// Keeps the ConfigMap, for ever.
    async fn keep_since(&self, client: &Client, mut made: Option<Instant>) {
        let configs = self.parts.resources.collection_of("", "v1", "configmaps");
        loop {
            let Ok(mut changes) = configs.watch(configs.last_change()) else { continue };
            let present = configs.get(&format!("kube-system/{NAME}"));
            let done = match present.map(|object| object.to_value()) {
                Some(object) => repair(client, object).await,
                None => {
                    // The right to make it again comes with time.
                    if let Some(made) = made {
                        tokio::time::sleep_until(made + CREATIONS).await;
                    }
                    create(client).await.inspect(|()| made = Some(Instant::now()))
                }
            };
            if let Err(error) = done {
                tracing::debug!(%error, "it was not said since when legacy tokens are tracked");
                tokio::time::sleep(RETRY).await;
                continue;
            }
            // Falling behind is as good as a change.
            while let Ok(events) = changes.next().await {
                if events.iter().any(|event| event.key.strip_prefix("kube-system/") == Some(NAME)) {
                    break;
                }
            }
        }
    }
}

async fn create(client: &Client) -> Result<(), Error> {
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": NAME, "namespace": "kube-system"},
        "data": {SINCE: day(Timestamp::now()).to_string()},
    });
    send(client, Method::POST, "", &object).await
}

/// A day that nobody can read is today from now on.
async fn repair(client: &Client, mut object: Value) -> Result<(), Error> {
    let since = object["data"][SINCE].as_str().unwrap_or("");
    if since.parse::<Date>().is_ok_and(|day| day.to_string() == since) {
        return Ok(());
    }
    object["data"][SINCE] = day(Timestamp::now()).to_string().into();
    send(client, Method::PUT, &format!("/{NAME}"), &object).await
}

async fn send(client: &Client, method: Method, name: &str, body: &Value) -> Result<(), Error> {
    let target = format!("/api/v1/namespaces/kube-system/configmaps{name}");
    let body = Local::body(body);
    match client.call(Request { method, target, content_type: None, body }).await {
        // Another server was faster: its change is seen next.
        Err(error) if error.is_already_exists() || error.is_conflict() || error.is_not_found() => {
            Ok(())
        }
        other => other.map(drop),
    }
}
