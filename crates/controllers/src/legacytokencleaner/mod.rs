//! Legacy service account token cleaner: marks auto-generated token Secrets that nobody used for a long
//! time as invalid, and deletes them when they stay unused
//! (`pkg/controller/serviceaccount/legacy_serviceaccount_token_cleaner.go`).
//!
//! Once a day it lists those Secrets: none of this depends on a change, but on dates.

mod plan;
#[cfg(test)]
mod tests;

use std::time::Duration;

use client::{Action, Client, DeleteParams, Error, Informer, ListParams, Patch, Queue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use serde_json::json;

use self::plan::{Step, Window};
use crate::Context;
use crate::harness::Reconciler;
use crate::meta::{name, namespace, uid};

const NAME: &str = "legacy-serviceaccount-token-cleaner-controller";
/// Upstream's `DefaultCleanerSyncInterval`.
const SYNC_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// Where API servers say since when they note the use of tokens.
const TRACKING: (&str, &str) =
    ("kube-system", "kube-apiserver-legacy-service-account-token-tracking");

pub(crate) fn start(context: &Context) {
    let this = Cleaner {
        client: context.client.clone(),
        accounts: context.informers.of(),
        pods: context.informers.of(),
        unused_max: context.config.legacy_token_clean_up_period,
    };
    let queue = Queue::new();
    queue.add(());
    crate::harness::start(context, NAME, 1, queue, this);
}

#[derive(Clone)]
struct Cleaner {
    client: Client,
    accounts: Informer<ServiceAccount>,
    pods: Informer<Pod>,
    /// How long a token may be unused.
    unused_max: Duration,
}

impl Reconciler for Cleaner {
    type Key = ();

    async fn synced(&self) {
        self.accounts.synced().await;
        self.pods.synced().await;
    }

    async fn reconcile(&self, (): ()) -> Result<Action, Error> {
        let now = Timestamp::now();
        let Some(window) = self.window(now).await? else { return Ok(Action::After(SYNC_INTERVAL)) };
        let of_type =
            ListParams { field_selector: format!("type={}", plan::TYPE), ..ListParams::default() };
        let (secrets, _) = self.client.list::<Secret>("", &of_type).await?;
        for secret in &secrets {
            let step = self.step(secret, &window);
            // One Secret that cannot be written holds up no other; the next day tries again.
            if let Err(error) = self.apply(secret, step).await {
                let (namespace, name) = (namespace(&secret.metadata), name(&secret.metadata));
                tracing::error!(namespace, name, %error, "a legacy token was not cleaned up");
            }
        }
        Ok(Action::After(SYNC_INTERVAL))
    }
}

impl Cleaner {
    /// The dates to compare with; none while API servers have not noted tokens' use for long enough.
    async fn window(&self, now: Timestamp) -> Result<Option<Window>, Error> {
        let tracking = match self.client.get::<ConfigMap>(TRACKING.0, TRACKING.1).await {
            Ok(tracking) => tracking,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let since = tracking.data.as_ref().and_then(|data| data.get("since"));
        match Window::new(since.map(String::as_str), now, self.unused_max) {
            Ok(window) => Ok(window),
            Err(why) => {
                tracing::error!(why, "since when tokens are tracked is not known");
                Ok(None)
            }
        }
    }

    fn step(&self, secret: &Secret, window: &Window) -> Step {
        let space = namespace(&secret.metadata);
        let account = self.accounts.get(space, plan::account_of(secret));
        window.step(secret, account.as_deref(), || {
            let pods = self.pods.list_namespace(space);
            let own = name(&secret.metadata);
            pods.iter().any(|pod| plan::secrets_of(pod).any(|used| used == own))
        })
    }

    async fn apply(&self, secret: &Secret, step: Step) -> Result<(), Error> {
        let (space, own) = (namespace(&secret.metadata), name(&secret.metadata));
        let done = match step {
            Step::Keep => Ok(()),
            Step::Invalidate(day) => {
                let meta = json!({"uid": uid(&secret.metadata),
                    "labels": {(plan::INVALID_SINCE): day}});
                let patch = Patch::Merge(json!({"metadata": meta}));
                self.client.patch::<Secret>(space, own, &patch).await.map(drop)
            }
            Step::Delete => {
                let resource_version = secret.metadata.resource_version.clone();
                let params = DeleteParams { resource_version, ..DeleteParams::default() };
                self.client.delete::<Secret>(space, own, &params).await
            }
        };
        match done {
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            other => other,
        }
    }
}
