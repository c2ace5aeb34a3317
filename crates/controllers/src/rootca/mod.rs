//! Root CA publisher: every namespace has the ConfigMap that pods verify the API server with.
//!
//! Watches Namespaces and the ConfigMaps of that name.

mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::{Action, Client, Error, Informer, Queue, run_workers};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};

use crate::meta::{name, namespace};
use crate::namespace::active;
use crate::{Config, Context};

/// Namespaces reconciled at once: several may be made in one go, each wants one write.
const WORKERS: usize = 4;

pub(crate) fn start(context: &Context) {
    let this = Publisher {
        client: context.client.clone(),
        config: context.config.clone(),
        namespaces: context.informers.of(),
        maps: context.informers.of(),
        queue: Queue::new(),
    };
    let queue = this.queue.clone();
    this.namespaces.on_change(move |change| queue.add(name(&change.object().metadata).to_owned()));
    let queue = this.queue.clone();
    this.maps.on_change(move |change| {
        let meta = &change.object().metadata;
        if name(meta) == plan::NAME {
            queue.add(namespace(meta).to_owned());
        }
    });
    context.tasks.required("root CA publisher", this.run());
}

#[derive(Clone)]
struct Publisher {
    client: Client,
    config: Arc<Config>,
    namespaces: Informer<Namespace>,
    maps: Informer<ConfigMap>,
    queue: Queue<String>,
}

impl Publisher {
    async fn run(self) {
        self.namespaces.synced().await;
        self.maps.synced().await;
        let queue = self.queue.clone();
        let work = move |namespace: String| {
            let this = self.clone();
            async move { this.sync(&namespace).await }
        };
        run_workers("root CA publisher", queue, WORKERS, work).await;
    }

    async fn sync(&self, namespace: &str) -> Result<Action, Error> {
        if !self.namespaces.get("", namespace).is_some_and(|n| active(&n)) {
            return Ok(Action::Done);
        }
        let present = self.maps.get(namespace, plan::NAME);
        let wanted = plan::plan(namespace, &self.config.cluster_ca_pem, present.as_deref());
        let Some(map) = wanted else { return Ok(Action::Done) };
        let written = match present {
            Some(_) => self.client.update(&map).await,
            None => self.client.create(namespace, &map).await,
        };
        match written {
            Err(error) if error.is_already_exists() => Ok(Action::Done),
            other => other.map(|_| Action::Done),
        }
    }
}
