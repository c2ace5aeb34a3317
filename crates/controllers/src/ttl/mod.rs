//! TTL: tells nodes, by annotation, how long they may keep Secrets and ConfigMaps: longer in large
//! clusters.
//!
//! Watches Nodes.

mod plan;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use client::{Action, Change, Client, Error, Informer, Patch, Queue};
use k8s_openapi::api::core::v1::Node;
use serde_json::json;

use self::plan::{ANNOTATION, Step};
use crate::Context;
use crate::harness::Reconciler;
use crate::meta::name;

/// Nodes patched at once (upstream's number of workers).
const WORKERS: usize = 5;

pub(crate) fn start(context: &Context) {
    let this =
        Ttl { client: context.client.clone(), nodes: context.informers.of(), size: Arc::default() };
    let queue = Queue::new();
    let (watching, keys) = (this.clone(), queue.clone());
    this.nodes.on_change(move |change| {
        if watching.count(change) {
            // Another step: all nodes are told, at their own pace.
            watching.nodes.list().iter().for_each(|n| keys.add(name(&n.metadata).to_owned()));
        } else if matches!(change, Change::Added(_)) {
            keys.add(name(&change.object().metadata).to_owned());
        }
    });
    crate::harness::start(context, "ttl-controller", WORKERS, queue, this);
}

#[derive(Debug, Default)]
struct Size {
    nodes: usize,
    step: Step,
}

#[derive(Clone)]
struct Ttl {
    client: Client,
    nodes: Informer<Node>,
    size: Arc<Mutex<Size>>,
}

impl Ttl {
    /// Counts the node; whether the time changes with it.
    fn count(&self, change: &Change<Node>) -> bool {
        let mut size = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        match change {
            Change::Added(_) => size.nodes += 1,
            Change::Deleted(_) => size.nodes = size.nodes.saturating_sub(1),
            Change::Updated { .. } => return false,
        }
        let before = size.step;
        size.step = before.with(size.nodes);
        size.step != before
    }
}

impl Reconciler for Ttl {
    type Key = String;

    async fn synced(&self) {
        self.nodes.synced().await;
    }

    async fn reconcile(&self, own: String) -> Result<Action, Error> {
        let Some(node) = self.nodes.get("", &own) else { return Ok(Action::Done) };
        let step = self.size.lock().unwrap_or_else(PoisonError::into_inner).step;
        let wanted = step.seconds().to_string();
        let told = node.metadata.annotations.as_ref().and_then(|a| a.get(ANNOTATION));
        if told == Some(&wanted) {
            return Ok(Action::Done);
        }
        let patch = json!({"metadata": {"annotations": {ANNOTATION: wanted}}});
        match self.client.patch::<Node>("", &own, &Patch::Strategic(patch)).await {
            Err(error) if error.is_not_found() => Ok(Action::Done),
            other => other.map(|_| Action::Done),
        }
    }
}
