//! Token cleaner: deletes bootstrap tokens that expired.
//!
//! Watches the Secrets of `kube-system`. Not started by `*`, as in upstream.

#[cfg(test)]
mod tests;

use std::time::Duration;

use client::{Action, Client, DeleteParams, Error, Informer, Queue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;

use crate::Context;
use crate::harness::Reconciler;
use crate::meta::{name, namespace};

const NAMESPACE: &str = "kube-system";
const KIND: &str = "bootstrap.kubernetes.io/token";
/// The field with the time of expiry.
const EXPIRATION: &str = "expiration";

pub(crate) fn start(context: &Context) {
    let this = Cleaner { client: context.client.clone(), secrets: context.informers.of() };
    let queue = Queue::new();
    let keys = queue.clone();
    this.secrets.on_change(move |change| {
        let meta = &change.object().metadata;
        if namespace(meta) == NAMESPACE {
            keys.add(name(meta).to_owned());
        }
    });
    crate::harness::start(context, "token-cleaner-controller", 1, queue, this);
}

#[derive(Clone)]
struct Cleaner {
    client: Client,
    secrets: Informer<Secret>,
}

/// The time that a bootstrap token has left; `None` if it is none, or has no end. One whose end cannot be
/// read is over: nobody may use a token for longer than was meant.
fn left(secret: &Secret, now: Timestamp) -> Option<Duration> {
    if secret.type_.as_deref() != Some(KIND) {
        return None;
    }
    let text = secret.data.as_ref()?.get(EXPIRATION)?;
    if text.0.is_empty() {
        return None;
    }
    let end = std::str::from_utf8(&text.0).ok().and_then(|text| text.parse::<Timestamp>().ok());
    let left = end.and_then(|end| Duration::try_from(end.duration_since(now)).ok());
    Some(left.unwrap_or(Duration::ZERO))
}

impl Reconciler for Cleaner {
    type Key = String;

    async fn synced(&self) {
        self.secrets.synced().await;
    }

    async fn reconcile(&self, own: String) -> Result<Action, Error> {
        let Some(secret) = self.secrets.get(NAMESPACE, &own) else { return Ok(Action::Done) };
        match left(&secret, Timestamp::now()) {
            None => return Ok(Action::Done),
            Some(Duration::ZERO) => {}
            Some(left) => return Ok(Action::After(left)),
        }
        let uid = secret.metadata.uid.clone();
        let params = DeleteParams { uid, ..DeleteParams::default() };
        match self.client.delete::<Secret>(NAMESPACE, &own, &params).await {
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(Action::Done),
            other => other.map(|()| Action::Done),
        }
    }
}
