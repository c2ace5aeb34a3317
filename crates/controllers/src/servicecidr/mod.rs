//! Service CIDRs: ready when they are there, and kept while addresses would be orphaned.
//!
//! Watches ServiceCIDRs and IPAddresses.

mod plan;
#[cfg(test)]
mod tests;

use std::time::Duration;

use client::{Action, Change, Client, Error, EventType, Informer, Patch, Queue, Recorder};
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use serde_json::json;

use crate::Context;
use crate::harness::Reconciler;
use crate::meta::{name, now, reference};

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// Until everybody who gives out addresses knows that the range ends (upstream's deletionGracePeriod).
const GRACE: Duration = Duration::from_secs(10);
/// Ranges looked at together (upstream's number of workers).
const WORKERS: usize = 5;

pub(crate) fn start(context: &Context) {
    let this = Cidrs {
        client: context.client.clone(),
        recorder: context.recorder("service-cidr-controller"),
        cidrs: context.informers.of(),
        addresses: context.informers.of(),
    };
    let queue = Queue::new();
    let (cidrs, keys) = (this.cidrs.clone(), queue.clone());
    this.cidrs.on_change(move |_: &Change<ServiceCIDR>| {
        // A range that comes or goes may be what another waits for.
        cidrs.list().iter().for_each(|c| keys.add(name(&c.metadata).to_owned()));
    });
    let (cidrs, keys) = (this.cidrs.clone(), queue.clone());
    this.addresses.on_change(move |change: &Change<IPAddress>| {
        if matches!(change, Change::Deleted(_)) {
            let all = cidrs.list();
            let ending = all.iter().filter(|c| c.metadata.deletion_timestamp.is_some());
            ending.for_each(|c| keys.add(name(&c.metadata).to_owned()));
        }
    });
    crate::harness::start(context, "service-cidr-controller", WORKERS, queue, this);
}

#[derive(Clone)]
struct Cidrs {
    client: Client,
    recorder: Recorder,
    cidrs: Informer<ServiceCIDR>,
    addresses: Informer<IPAddress>,
}

impl Reconciler for Cidrs {
    type Key = String;

    async fn synced(&self) {
        self.cidrs.synced().await;
        self.addresses.synced().await;
    }

    async fn reconcile(&self, own: String) -> Result<Action, Error> {
        let Some(cidr) = self.cidrs.get("", &own) else { return Ok(Action::Done) };
        let held = cidr.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER);
        let Some(ends) = &cidr.metadata.deletion_timestamp else {
            if !held {
                self.patch(&own, json!({"finalizers": [FINALIZER]})).await?;
            }
            let told = self.tell(&cidr, plan::READY).await;
            return told.map(|()| Action::Done).inspect_err(|_| self.warn(&cidr));
        };
        if plan::orphans(&cidr, &self.cidrs.list(), &self.addresses.list()) {
            return self.tell(&cidr, plan::TERMINATING).await.map(|()| Action::Done);
        }
        let past = Duration::try_from(Timestamp::now().duration_since(ends.0)).unwrap_or_default();
        if past < GRACE {
            return Ok(Action::After(GRACE - past));
        }
        if held {
            self.patch(&own, json!({"$deleteFromPrimitiveList/finalizers": [FINALIZER]})).await?;
        }
        Ok(Action::Done)
    }
}

impl Cidrs {
    async fn patch(&self, own: &str, meta: serde_json::Value) -> Result<(), Error> {
        let patch = Patch::Strategic(json!({"metadata": meta}));
        match self.client.patch::<ServiceCIDR>("", own, &patch).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }

    fn warn(&self, cidr: &ServiceCIDR) {
        let message = "The ServiceCIDR Status can not be set to Ready=True";
        let (about, reason) = (reference(cidr), "KubernetesServiceCIDRError");
        self.recorder.event(&about, EventType::Warning, reason, message);
    }

    async fn tell(&self, cidr: &ServiceCIDR, said: plan::Said) -> Result<(), Error> {
        let Some(condition) = plan::condition(cidr, said, now()) else { return Ok(()) };
        let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
        match self.client.patch_status::<ServiceCIDR>("", name(&cidr.metadata), &patch).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }
}
