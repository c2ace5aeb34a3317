//! EndpointSlice mirroring: slices that show Endpoints which somebody keeps by hand for a Service
//! without a selector.
//!
//! Watches Endpoints, Services and EndpointSlices.

mod plan;
#[cfg(test)]
mod tests;

use client::{
    Action, Client, DeleteParams, Error, EventType, Index, IndexKey, Informer, Queue, Recorder,
    run_workers,
};
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::Context;
use crate::endpointslice::plan::{MANAGED_BY, Plan, SERVICE_NAME};
use crate::harness::{EXPECTATIONS_TIMEOUT, Expectations};
use crate::meta::{Key, key, namespace, reference};

/// Endpoints reconciled at once (upstream's --mirroring-concurrent-service-endpoint-syncs).
const WORKERS: usize = 5;

/// Slices by Endpoints, with their namespace.
struct ByEndpoints;

impl IndexKey<EndpointSlice> for ByEndpoints {
    fn values(slice: &EndpointSlice) -> Vec<String> {
        endpoints_of(slice).map(|(ns, name)| format!("{ns}/{name}")).into_iter().collect()
    }
}

pub(crate) fn start(context: &Context) {
    let slices = context.informers.of::<EndpointSlice>();
    let this = Mirrors {
        client: context.client.clone(),
        recorder: context.recorder("endpoint-slice-mirroring-controller"),
        endpoints: context.informers.of(),
        services: context.informers.of(),
        by_owner: slices.index(),
        expectations: Expectations::new(slices.clone()),
        slices,
        queue: Queue::new(),
    };
    this.watch();
    context.tasks.required("endpoint slice mirroring controller", this.run());
}

#[derive(Clone)]
struct Mirrors {
    client: Client,
    recorder: Recorder,
    endpoints: Informer<Endpoints>,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    queue: Queue<Key>,
    by_owner: Index<EndpointSlice, ByEndpoints>,
    expectations: Expectations<EndpointSlice>,
}

/// The Endpoints that a slice of ours shows.
fn endpoints_of(slice: &EndpointSlice) -> Option<Key> {
    let labels = slice.metadata.labels.as_ref()?;
    let ours = labels.get(MANAGED_BY).is_some_and(|m| m == plan::MANAGER);
    let name = labels.get(SERVICE_NAME).filter(|_| ours)?;
    Some((namespace(&slice.metadata).to_owned(), name.clone()))
}

impl Mirrors {
    fn watch(&self) {
        let queue = self.queue.clone();
        self.endpoints.on_change(move |change| queue.add(key(&**change.object())));
        let queue = self.queue.clone();
        self.services.on_change(move |change| queue.add(key(&**change.object())));
        let this = self.clone();
        self.slices.on_change(move |change| {
            for slice in [Some(change.object()), change.old()].into_iter().flatten() {
                let Some(key) = endpoints_of(slice) else { continue };
                this.queue.add(key);
            }
        });
    }

    async fn run(self) {
        self.endpoints.synced().await;
        self.services.synced().await;
        self.slices.synced().await;
        let queue = self.queue.clone();
        let work = move |key: Key| {
            let this = self.clone();
            async move { this.sync(key).await }
        };
        run_workers("endpointslicemirroring", queue, WORKERS, work).await;
    }

    async fn sync(&self, key: Key) -> Result<Action, Error> {
        if !self.expectations.satisfied(&key) {
            return Ok(Action::After(EXPECTATIONS_TIMEOUT));
        }
        let present = self.by_owner.get(&format!("{}/{}", key.0, key.1));
        let endpoints = self.endpoints.get(&key.0, &key.1);
        let service = self.services.get(&key.0, &key.1);
        let plan = match (endpoints, service) {
            (Some(endpoints), Some(service)) if plan::is_mirrored(&endpoints, &service) => {
                self.report(&endpoints);
                plan::plan(&endpoints, &present)
            }
            _ => plan::nothing(&present),
        };
        self.apply(&key, plan).await.map(|()| Action::Done)
    }

    fn report(&self, endpoints: &Endpoints) {
        for (reason, message) in plan::faults(endpoints) {
            self.recorder.event(&reference(endpoints), EventType::Warning, reason, message);
        }
    }

    async fn apply(&self, key: &Key, plan: Plan) -> Result<(), Error> {
        for slice in &plan.create {
            let made = self.client.create(&key.0, slice).await?;
            self.expectations.expect_creation(key, &made);
        }
        for slice in &plan.update {
            self.client.update(slice).await?;
        }
        for name in &plan.delete {
            let params = DeleteParams::default();
            match self.client.delete::<EndpointSlice>(&key.0, name, &params).await {
                Err(error) if error.is_not_found() => {}
                other => other?,
            }
        }
        Ok(())
    }
}
