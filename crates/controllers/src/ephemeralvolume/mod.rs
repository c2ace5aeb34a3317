//! Ephemeral volumes: claims that live and die with their pod.
//!
//! Watches Pods and PersistentVolumeClaims.

mod plan;
#[cfg(test)]
mod tests;

use client::{Action, Change, Client, Error, EventType, Informer, Queue, Recorder};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};

use self::plan::Missing;
use crate::Context;
use crate::harness::Reconciler;
use crate::meta::{Key, controller, key, name, namespace, reference};

/// Pods looked at together (upstream's --concurrent-ephemeralvolume-syncs).
const WORKERS: usize = 5;

pub(crate) fn start(context: &Context) {
    let this = EphemeralVolumes {
        client: context.client.clone(),
        recorder: context.recorder("ephemeral_volume"),
        pods: context.informers.of(),
        claims: context.informers.of(),
    };
    let queue = Queue::new();
    let keys = queue.clone();
    this.pods.on_change(move |change| {
        let pod = change.object();
        if !matches!(change, Change::Deleted(_)) && plan::has_ephemeral(pod) {
            keys.add(key(&**pod));
        }
    });
    let keys = queue.clone();
    this.claims.on_change(move |change: &Change<PersistentVolumeClaim>| {
        let claim = change.object();
        if let Some(owner) = controller(&claim.metadata).filter(|o| o.kind == "Pod")
            && matches!(change, Change::Deleted(_))
        {
            keys.add((namespace(&claim.metadata).to_owned(), owner.name.clone()));
        }
    });
    crate::harness::start(context, "ephemeral-volume-controller", WORKERS, queue, this);
}

#[derive(Clone)]
struct EphemeralVolumes {
    client: Client,
    recorder: Recorder,
    pods: Informer<Pod>,
    claims: Informer<PersistentVolumeClaim>,
}

impl Reconciler for EphemeralVolumes {
    type Key = Key;

    async fn synced(&self) {
        self.pods.synced().await;
        self.claims.synced().await;
    }

    async fn reconcile(&self, (space, own): Key) -> Result<Action, Error> {
        let Some(pod) = self.pods.get(&space, &own) else { return Ok(Action::Done) };
        for missing in plan::missing(&pod, |claim| self.claims.get(&space, claim)) {
            let (volume, claim) = match missing {
                Missing::Claim(volume, claim) => (volume, claim),
                Missing::Foreign(message) => return Err(self.refuse(&pod, message)),
            };
            match self.client.create(&space, &*claim).await {
                Ok(_) => {}
                // It came meanwhile; whose it is shows when it is in view.
                Err(error) if error.is_already_exists() => {}
                Err(error) => {
                    let own = name(&claim.metadata);
                    let message = format!("ephemeral volume {volume}: create PVC {own}: {error}");
                    self.warn(&pod, message);
                    return Err(error);
                }
            }
        }
        Ok(Action::Done)
    }
}

impl EphemeralVolumes {
    fn warn(&self, pod: &Pod, message: String) {
        let about = reference(pod);
        self.recorder.event(&about, EventType::Warning, "FailedBinding", message);
    }

    fn refuse(&self, pod: &Pod, message: String) -> Error {
        self.warn(pod, message.clone());
        api::Status::failure(409, "Conflict", message).into()
    }
}
