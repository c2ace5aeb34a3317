//! EndpointSlice: the addresses behind each Service with a selector.
//!
//! Watches Services, Pods, EndpointSlices and Nodes (for zones). Topology hints are not computed.

pub(crate) mod plan;
#[cfg(test)]
mod tests;

use client::run_workers;
use client::{
    Action, Change, Client, DeleteParams, Error, EventType, Index, IndexKey, Informer, Queue,
    Recorder,
};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::Context;
use crate::figures::endpoint_slices as figures;
use crate::harness::{EXPECTATIONS_TIMEOUT, Expectations};
use crate::meta::{Key, key, namespace, reference};
use crate::services::{pods_of, selector, watch_pods};

/// Services reconciled at once (upstream's --concurrent-service-endpoint-syncs).
const WORKERS: usize = 5;
const ZONE: &str = "topology.kubernetes.io/zone";

/// Slices by service, with their namespace.
struct ByService;

impl IndexKey<EndpointSlice> for ByService {
    fn values(slice: &EndpointSlice) -> Vec<String> {
        service_of(slice).map(|(ns, name)| format!("{ns}/{name}")).into_iter().collect()
    }
}

pub(crate) fn start(context: &Context) {
    let slices = context.informers.of::<EndpointSlice>();
    let this = Slices {
        client: context.client.clone(),
        recorder: context.recorder("endpoint-slice-controller"),
        services: context.informers.of(),
        pods: context.informers.of(),
        nodes: context.informers.of(),
        by_owner: slices.index(),
        expectations: Expectations::new(slices.clone()),
        slices,
        queue: Queue::new(),
    };
    this.watch();
    context.tasks.required("endpoint slice controller", this.run());
}

#[derive(Clone)]
struct Slices {
    client: Client,
    recorder: Recorder,
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
    queue: Queue<Key>,
    by_owner: Index<EndpointSlice, ByService>,
    expectations: Expectations<EndpointSlice>,
}

fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let labels = slice.metadata.labels.as_ref()?;
    let ours = labels.get(plan::MANAGED_BY).is_some_and(|m| m == plan::MANAGER);
    let service = labels.get(plan::SERVICE_NAME).filter(|_| ours)?;
    Some((namespace(&slice.metadata).to_owned(), service.clone()))
}

fn zone_of(node: &Node) -> Option<&String> {
    node.metadata.labels.as_ref()?.get(ZONE)
}

impl Slices {
    fn watch(&self) {
        let queue = self.queue.clone();
        self.services.on_change(move |change| queue.add(key(&**change.object())));
        watch_pods(&self.services, &self.pods, &self.queue);
        let this = self.clone();
        self.slices.on_change(move |change| {
            for slice in [Some(change.object()), change.old()].into_iter().flatten() {
                let Some(key) = service_of(slice) else { continue };
                this.queue.add(key);
            }
        });
        let this = self.clone();
        self.nodes.on_change(move |change| {
            let zone = zone_of(change.object()).filter(|_| !matches!(change, Change::Deleted(_)));
            if change.old().and_then(|n| zone_of(n)) != zone {
                this.services.list().iter().for_each(|s| this.queue.add(key(&**s)));
            }
        });
    }

    async fn run(self) {
        self.services.synced().await;
        self.pods.synced().await;
        self.nodes.synced().await;
        self.slices.synced().await;
        let queue = self.queue.clone();
        let work = move |key: Key| {
            let this = self.clone();
            async move { this.sync(key).await }
        };
        run_workers("endpointslice", queue, WORKERS, work).await;
    }

    async fn sync(&self, key: Key) -> Result<Action, Error> {
        // What a deleted service leaves is garbage: its slices name it as their owner.
        let Some(service) = self.services.get(&key.0, &key.1) else {
            figures::forget(&key);
            return Ok(Action::Done);
        };
        if selector(&service).is_none() || service.metadata.deletion_timestamp.is_some() {
            figures::forget(&key);
            return Ok(Action::Done);
        }
        if !self.expectations.satisfied(&key) {
            return Ok(Action::After(EXPECTATIONS_TIMEOUT));
        }
        let pods = pods_of(&service, &self.pods);
        let zone = |node: &str| self.nodes.get("", node).as_deref().and_then(zone_of).cloned();
        let present = self.by_owner.get(&format!("{}/{}", key.0, key.1));
        let plan = plan::plan(&service, &pods, &zone, &present);
        let (mut counts, changes) = plan.counts(&present);
        counts.traffic_distribution =
            service.spec.as_ref().and_then(|spec| spec.traffic_distribution.clone());
        let outcome = self.apply(&key, plan).await;
        if outcome.is_ok() {
            figures::synced(&key, counts, changes);
        }
        if let Err(error) = &outcome
            && !error.is_conflict()
        {
            let message =
                format!("Error updating Endpoint Slices for Service {}/{}: {error}", key.0, key.1);
            let about = reference(&*service);
            let reason = "FailedToUpdateEndpointSlices";
            self.recorder.event(&about, EventType::Warning, reason, message);
        }
        outcome.map(|()| Action::Done)
    }

    async fn apply(&self, key: &Key, plan: plan::Plan) -> Result<(), Error> {
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
