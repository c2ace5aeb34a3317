//! Volume attributes classes: protected while a claim or a volume names them.

use std::collections::BTreeSet;

use client::{Action, Change, Client, Error, Informer, Queue, run_workers};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;

use super::{WORKERS, plan, settle};
use crate::Context;
use crate::meta::name;

const FINALIZER: &str = "kubernetes.io/vac-protection";
const BY_CLASS: &str = "volume attributes class";

pub(crate) fn start(context: &Context) {
    let this = Classes {
        client: context.client.clone(),
        classes: context.informers.of(),
        claims: context.informers.of(),
        volumes: context.informers.of(),
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
        self.claims.add_index(BY_CLASS, plan::classes_of_claim);
        self.volumes.add_index(BY_CLASS, plan::classes_of_volume);
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
        let used = !self.claims.by_index(BY_CLASS, name).is_empty()
            || !self.volumes.by_index(BY_CLASS, name).is_empty();
        settle(&self.client, &*class, FINALIZER, used).await
    }
}
