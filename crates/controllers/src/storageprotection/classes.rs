//! Volume attributes classes: protected while a claim or a volume names them.

use std::collections::BTreeSet;

use client::{Action, Change, Client, Error, Index, IndexKey, Informer, Queue, run_workers};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;

use super::{WORKERS, plan, settle};
use crate::Context;
use crate::meta::name;

const FINALIZER: &str = "kubernetes.io/vac-protection";

/// Claims and volumes by the volume attributes classes they name.
struct ByClass;

impl IndexKey<PersistentVolumeClaim> for ByClass {
    fn values(claim: &PersistentVolumeClaim) -> Vec<String> {
        plan::classes_of_claim(claim)
    }
}

impl IndexKey<PersistentVolume> for ByClass {
    fn values(volume: &PersistentVolume) -> Vec<String> {
        plan::classes_of_volume(volume)
    }
}

pub(crate) fn start(context: &Context) {
    let claims = context.informers.of::<PersistentVolumeClaim>();
    let volumes = context.informers.of::<PersistentVolume>();
    let this = Classes {
        client: context.client.clone(),
        classes: context.informers.of(),
        claims_by_class: claims.index(),
        volumes_by_class: volumes.index(),
        claims,
        volumes,
        queue: Queue::new(),
    };
    this.watch();
    context.tasks.required("volume attributes class protection", this.run());
}

#[derive(Clone)]
struct Classes {
    client: Client,
    classes: Informer<VolumeAttributesClass>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    claims_by_class: Index<PersistentVolumeClaim, ByClass>,
    volumes_by_class: Index<PersistentVolume, ByClass>,
    queue: Queue<String>,
}

/// The classes that an object named and names no more.
fn released<K>(change: &Change<K>, names: fn(&K) -> Vec<String>) -> Vec<String> {
    let named = change.old().map(|o| names(o)).unwrap_or_default();
    let kept: BTreeSet<String> = match change {
        Change::Deleted(_) => BTreeSet::new(),
        _ => names(change.object()).into_iter().collect(),
    };
    named.into_iter().filter(|n| !kept.contains(n)).collect()
}

impl Classes {
    fn watch(&self) {
        let queue = self.queue.clone();
        self.classes.on_change(move |change| {
            let meta = &change.object().metadata;
            if plan::open(meta, FINALIZER) {
                queue.add(name(meta).to_owned());
            }
        });
        let queue = self.queue.clone();
        self.claims.on_change(move |change| {
            released(change, plan::classes_of_claim).into_iter().for_each(|n| queue.add(n));
        });
        let queue = self.queue.clone();
        self.volumes.on_change(move |change| {
            released(change, plan::classes_of_volume).into_iter().for_each(|n| queue.add(n));
        });
    }

    async fn run(self) {
        self.classes.synced().await;
        self.claims.synced().await;
        self.volumes.synced().await;
        let queue = self.queue.clone();
        let work = move |name: String| {
            let this = self.clone();
            async move { this.sync(&name).await }
        };
        run_workers("volume attributes class protection", queue, WORKERS, work).await;
    }

    async fn sync(&self, name: &str) -> Result<Action, Error> {
        let Some(class) = self.classes.get("", name) else { return Ok(Action::Done) };
        let used = !self.claims_by_class.get(name).is_empty()
            || !self.volumes_by_class.get(name).is_empty();
        settle(&self.client, &*class, FINALIZER, used).await
    }
}
