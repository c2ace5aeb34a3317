//! Endpoints: the old form of a Service's addresses, one object a service.
//!
//! Watches Services, Pods and Endpoints.

mod plan;
#[cfg(test)]
mod tests;

use client::{Action, Client, DeleteParams, Error, Informer, Queue, run_workers};
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};

use crate::Context;
use crate::meta::{Key, key};
use crate::services::{pods_of, selector, watch_pods};

/// Services reconciled at once (upstream's --concurrent-endpoint-syncs).
const WORKERS: usize = 5;

pub(crate) fn start(context: &Context) {
    let this = Controller {
        client: context.client.clone(),
        services: context.informers.of(),
        pods: context.informers.of(),
        endpoints: context.informers.of(),
        queue: Queue::new(),
    };
    let queue = this.queue.clone();
    this.services.on_change(move |change| queue.add(key(&**change.object())));
    let queue = this.queue.clone();
    this.endpoints.on_change(move |change| queue.add(key(&**change.object())));
    watch_pods(&this.services, &this.pods, &this.queue);
    context.tasks.required("endpoints controller", this.run());
}

#[derive(Clone)]
struct Controller {
    client: Client,
    services: Informer<Service>,
    pods: Informer<Pod>,
    endpoints: Informer<Endpoints>,
    queue: Queue<Key>,
}

impl Controller {
    async fn run(self) {
        self.services.synced().await;
        self.pods.synced().await;
        self.endpoints.synced().await;
        let queue = self.queue.clone();
        let work = move |key: Key| {
            let this = self.clone();
            async move { this.sync(key).await }
        };
        run_workers("endpoints", queue, WORKERS, work).await;
    }

    async fn sync(&self, (namespace, name): Key) -> Result<Action, Error> {
        let present = self.endpoints.get(&namespace, &name);
        let Some(service) = self.services.get(&namespace, &name) else {
            // Only what we made; others keep Endpoints without a Service on purpose.
            if present.as_deref().is_some_and(plan::is_ours) {
                let params = DeleteParams::default();
                match self.client.delete::<Endpoints>(&namespace, &name, &params).await {
                    Err(error) if error.is_not_found() => {}
                    other => other?,
                }
            }
            return Ok(Action::Done);
        };
        if selector(&service).is_none() {
            return Ok(Action::Done);
        }
        let pods = pods_of(&service, &self.pods);
        if let Some(object) = plan::plan(&service, &pods, present.as_deref()) {
            match present {
                Some(_) => drop(self.client.update(&object).await?),
                None => drop(self.client.create(&namespace, &object).await?),
            }
        }
        Ok(Action::Done)
    }
}
