//! Volume binder: claims and volumes find each other, and what claims leave is reclaimed.
//!
//! Watches PersistentVolumes, PersistentVolumeClaims, StorageClasses and Pods. One worker: two claims
//! must not choose the same volume. Volumes are made by external provisioners only.

mod cache;
mod claims;
mod plan;
#[cfg(test)]
mod tests;
mod volumes;

use std::sync::Arc;

use client::{Action, Change, Client, Error, EventType, Informer, Queue, Recorder, Resource};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;

use self::cache::Cache;
use crate::Context;
use crate::harness::Reconciler;
use crate::meta::{key, name, reference};

pub(crate) fn start(context: &Context) {
    let this = Binder {
        client: context.client.clone(),
        recorder: context.recorder("persistentvolume-controller"),
        volumes: Cache::new(context.informers.of()),
        claims: Cache::new(context.informers.of()),
        classes: context.informers.of(),
        pods: context.informers.of(),
        queue: Queue::new(),
    };
    this.watch();
    crate::harness::start(
        context,
        "persistentvolume-binder-controller",
        1,
        this.queue.clone(),
        this,
    );
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Claim(String, String),
    Volume(String),
}

#[derive(Clone)]
struct Binder {
    client: Client,
    recorder: Recorder,
    volumes: Cache<PersistentVolume>,
    claims: Cache<PersistentVolumeClaim>,
    classes: Informer<StorageClass>,
    pods: Informer<Pod>,
    queue: Queue<Key>,
}

fn of_claim(claim: &PersistentVolumeClaim) -> Key {
    let (space, own) = key(claim);
    Key::Claim(space, own)
}

impl Binder {
    fn watch(&self) {
        let this = self.clone();
        self.claims.view().on_change(move |change: &Change<PersistentVolumeClaim>| {
            let claim = change.object();
            this.queue.add(of_claim(claim));
            if let Some(volume) = claim.spec.as_ref().and_then(|s| s.volume_name.clone()) {
                this.queue.add(Key::Volume(volume));
            }
        });
        let this = self.clone();
        self.volumes.view().on_change(move |change: &Change<PersistentVolume>| {
            let volume = change.object();
            this.queue.add(Key::Volume(name(&volume.metadata).to_owned()));
            match plan::claim_key(volume) {
                Some((space, own)) => this.queue.add(Key::Claim(space, own)),
                None => this.offer(&plan::class_of_volume(volume)),
            }
        });
        let this = self.clone();
        self.classes.on_change(move |change: &Change<StorageClass>| {
            this.offer(name(&change.object().metadata));
            this.offer("");
        });
    }

    /// A claim of this class that waits may find something now.
    fn offer(&self, class: &str) {
        let waits = |claim: &Arc<PersistentVolumeClaim>| {
            let bound = plan::annotation(&claim.metadata, plan::BIND_COMPLETED).is_some();
            !bound && plan::class_of(claim) == class
        };
        for claim in self.claims.view().list().into_iter().filter(waits) {
            self.queue.add(of_claim(&claim));
        }
    }

    fn event<K: Resource>(&self, about: &K, kind: EventType, reason: &str, message: String) {
        self.recorder.event(&reference(about), kind, reason, message);
    }

    fn warn<K: Resource>(&self, about: &K, reason: &str, message: String) {
        self.event(about, EventType::Warning, reason, message);
    }
}

impl Reconciler for Binder {
    type Key = Key;

    async fn synced(&self) {
        self.volumes.view().synced().await;
        self.claims.view().synced().await;
        self.classes.synced().await;
        self.pods.synced().await;
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        match key {
            Key::Claim(space, own) => {
                if let Some(claim) = self.claims.get(&space, &own) {
                    self.sync_claim(claim).await?;
                }
            }
            Key::Volume(own) => {
                if let Some(volume) = self.volumes.get("", &own) {
                    self.sync_volume(volume).await?;
                }
            }
        }
        Ok(Action::Done)
    }
}
