//! Service account tokens without an end: since when their use is tracked, and when each was last used
//! (KEP-2799). The legacy token cleaner of the controllers decides by both.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use auth::{LegacyUse, LegacyUses};
use client::{Client, Error, Request, Tasks};
use http::Method;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use serde_json::{Value, json};
use telemetry::{IntCounterVec, Registry};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::local::Local;
use crate::server::Server;

const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
/// What clients are told who use a Secret that came with its account.
pub(crate) const GENERATED: &str = "Use tokens from the TokenRequest API or manually created secret-based tokens instead of auto-generated secret-based tokens.";
/// Secrets that wait for their label. More are labelled when they are used again.
const WAITING_MAX: usize = 256;
const NAME: &str = "kube-apiserver-legacy-service-account-token-tracking";
const SINCE: &str = "since";
/// Between two creations of the ConfigMap, so that servers of which one does not track do not fight.
const CREATIONS: Duration = Duration::from_secs(30 * 60);
/// Between two tries after a failure.
const RETRY: Duration = Duration::from_secs(5);

/// Counts uses, and hands on those that a Secret does not show yet.
pub(crate) struct LegacyTokens {
    uses: Uses,
    labels: mpsc::Sender<LegacyUse>,
    /// What is on its way: who uses a token often is handed on once.
    waiting: Arc<Mutex<HashSet<String>>>,
    labelled: Mutex<Option<mpsc::Receiver<LegacyUse>>>,
}

struct Uses {
    generated: IntCounterVec,
    manual: IntCounterVec,
    invalidated: IntCounterVec,
}

impl LegacyTokens {
    pub(crate) fn new(registry: &Registry) -> LegacyTokens {
        let (labels, labelled) = mpsc::channel(WAITING_MAX);
        let count = |name: &str, help: &str| registry.counters(name, help, &[]);
        let uses = Uses {
            generated: count(
                "serviceaccount_legacy_auto_token_uses_total",
                "Cumulative auto-generated legacy tokens used",
            ),
            manual: count(
                "serviceaccount_legacy_manual_token_uses_total",
                "Cumulative manually created legacy tokens used",
            ),
            invalidated: count(
                "serviceaccount_invalid_legacy_auto_token_uses_total",
                "Cumulative invalid auto-generated legacy tokens used",
            ),
        };
        let labelled = Mutex::new(Some(labelled));
        LegacyTokens { uses, labels, waiting: Arc::default(), labelled }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Labels what is handed on, for ever; the first call's only.
    async fn label(&self, client: &Client) {
        let labelled = self.labelled.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut labelled) = labelled else { return };
        while let Some(used) = labelled.recv().await {
            if let Err(error) = label(client, &used).await {
                let (namespace, name) = &used.secret;
                tracing::warn!(%error, namespace, name, "the use of a token was not noted");
            }
            self.waiting().remove(&used.secret_uid);
        }
    }
}

impl LegacyUses for LegacyTokens {
    fn used(&self, used: &LegacyUse) {
        let counter = match used {
            LegacyUse { is_invalidated: true, .. } => &self.uses.invalidated,
            LegacyUse { is_generated: true, .. } => &self.uses.generated,
            _ => &self.uses.manual,
        };
        counter.with_label_values::<&str>(&[]).inc();
        if is_noted(used.last_used.as_deref(), Timestamp::now()) {
            return;
        }
        if self.waiting().insert(used.secret_uid.clone())
            && self.labels.try_send(used.clone()).is_err()
        {
            self.waiting().remove(&used.secret_uid);
        }
    }
}

fn day(now: Timestamp) -> Date {
    now.to_zoned(TimeZone::UTC).date()
}

/// Whether the label says today, or tomorrow: another server's clock may be ahead.
fn is_noted(last_used: Option<&str>, now: Timestamp) -> bool {
    let today = day(now);
    let tomorrow = today.saturating_add(1.day());
    last_used.is_some_and(|noted| [today, tomorrow].iter().any(|day| noted == day.to_string()))
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
    pub(crate) fn track_legacy_tokens(&self, client: Client, tasks: &Tasks) {
        let (server, labels) = (self.clone(), client.clone());
        tasks.spawn("use of legacy tokens", async move {
            server.parts.legacy_tokens.label(&labels).await;
        });
        let server = self.clone();
        tasks.spawn("legacy token tracking", async move { server.keep_since(&client).await });
    }

    /// Keeps the ConfigMap, for ever.
    async fn keep_since(&self, client: &Client) {
        let configs = self.parts.resources.collection_of("", "v1", "configmaps");
        let mut made: Option<Instant> = None;
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

#[cfg(test)]
mod tests {
    use super::is_noted;

    #[test]
    fn a_use_is_noted_once_a_day() {
        let now = "2026-11-28T23:59:59Z".parse().expect("a time");
        for (noted, is) in [
            (None, false),
            (Some("2026-11-27"), false),
            (Some("2026-11-28"), true),
            (Some("2026-11-29"), true),
            (Some("2026-11-30"), false),
            (Some("today"), false),
        ] {
            assert_eq!(is_noted(noted, now), is, "{noted:?}");
        }
    }
}
