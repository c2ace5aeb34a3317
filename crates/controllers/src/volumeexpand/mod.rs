//! Volume expansion: tells who waits for a larger volume that an external resizer is awaited.
//!
//! Watches PersistentVolumeClaims and PersistentVolumes. No volume is grown here: there are no volume plugins in
//! the process.

#[cfg(test)]
mod tests;

use api::quantity::Quantity;
use client::{Action, Change, Error, EventType, Informer, Queue, Recorder};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;

use crate::Context;
use crate::harness::Reconciler;
use crate::meta::{Key, key, reference, uid};

/// Claims looked at together (upstream's default workers).
const WORKERS: usize = 10;

pub(crate) fn start(context: &Context) {
    let this = Expansion {
        recorder: context.recorder("volume_expand"),
        claims: context.informers.of(),
        volumes: context.informers.of(),
    };
    let queue = Queue::new();
    let keys = queue.clone();
    this.claims.on_change(move |change: &Change<PersistentVolumeClaim>| {
        // Told once for each size that is asked for.
        let claim = change.object();
        if change.old().is_none_or(|old| requested(old) != requested(claim)) {
            keys.add(key(&**claim));
        }
    });
    let own = "persistentvolume-expander-controller";
    crate::harness::start(context, own, WORKERS, queue, this);
}

#[derive(Clone)]
struct Expansion {
    recorder: Recorder,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
}

fn bytes(amount: Option<&Amount>) -> i64 {
    amount.and_then(|a| Quantity::parse(&a.0).ok()).map_or(0, |q| q.value())
}

fn requested(claim: &PersistentVolumeClaim) -> i64 {
    let resources = claim.spec.as_ref().and_then(|s| s.resources.as_ref());
    bytes(resources.and_then(|r| r.requests.as_ref()).and_then(|r| r.get("storage")))
}

/// Whether a bound claim asks for more than it has.
fn is_growing(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let of = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
    let bound = of.and_then(|r| r.uid.as_deref()) == Some(uid(&claim.metadata));
    let status = claim.status.as_ref().and_then(|s| s.capacity.as_ref());
    bound && requested(claim) > bytes(status.and_then(|c| c.get("storage")))
}

impl Reconciler for Expansion {
    type Key = Key;

    async fn synced(&self) {
        self.claims.synced().await;
        self.volumes.synced().await;
    }

    async fn reconcile(&self, (space, own): Key) -> Result<Action, Error> {
        let Some(claim) = self.claims.get(&space, &own) else { return Ok(Action::Done) };
        let volume = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref());
        let volume = volume.and_then(|volume| self.volumes.get("", volume));
        if volume.is_some_and(|volume| is_growing(&claim, &volume)) {
            let message = "waiting for an external controller to expand this PVC";
            let about = reference(&*claim);
            self.recorder.event(&about, EventType::Normal, "ExternalExpanding", message);
        }
        Ok(Action::Done)
    }
}
