//! The snapshot controller and its sidecar in one: VolumeSnapshots get contents, contents get snapshots of the
//! driver, and what goes takes along what its policy says.
//!
//! A content belongs to the node that it is labelled with (upstream's distributed snapshotting), because only
//! there the driver has its volume.

mod contents;
mod definitions;
mod plan;
mod snapshots;
#[cfg(test)]
mod tests;
pub(crate) mod types;

use std::sync::Arc;

use client::{Action, Change, Error, Informer, Patch, Queue, Resource, run_workers};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use serde_json::{Value, json};

pub use self::definitions::snapshot_definitions;
pub use self::types::{VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent};
use crate::context::Context;
use crate::metadata::{name, namespace};

const WORKERS: usize = 4;
/// The label of contents that says whose they are.
pub(crate) const MANAGED_BY: &str = "snapshot.storage.kubernetes.io/managed-by";
const CONTENT_FINALIZER: &str =
    "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection";
const SNAPSHOT_FINALIZERS: [&str; 2] = [
    "snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection",
    "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection",
];

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Snapshot(String, String),
    Content(String),
}

#[derive(Clone)]
struct Snapshotter {
    context: Context,
    snapshots: Informer<VolumeSnapshot>,
    contents: Informer<VolumeSnapshotContent>,
    classes: Informer<VolumeSnapshotClass>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    queue: Queue<Key>,
}

pub(crate) async fn run(context: &Context) {
    let this = Snapshotter {
        context: context.clone(),
        snapshots: context.informers.of(),
        contents: context.informers.of(),
        classes: context.informers.of(),
        claims: context.informers.of(),
        volumes: context.informers.of(),
        queue: Queue::new(),
    };
    this.watch();
    this.snapshots.synced().await;
    this.contents.synced().await;
    this.classes.synced().await;
    this.claims.synced().await;
    this.volumes.synced().await;
    let queue = this.queue.clone();
    run_workers("external-snapshotter", queue, WORKERS, |key| this.reconcile(key)).await;
}

fn of_snapshot(snapshot: &VolumeSnapshot) -> Key {
    let meta = &snapshot.metadata;
    Key::Snapshot(namespace(meta).to_owned(), name(meta).to_owned())
}

fn failed(why: String) -> Error {
    api::Status::failure(500, "InternalError", why).into()
}

impl Snapshotter {
    fn watch(&self) {
        let this = self.clone();
        self.snapshots.on_change(move |change: &Change<VolumeSnapshot>| {
            let snapshot = change.object();
            this.queue.add(of_snapshot(snapshot));
            this.queue.add(Key::Content(plan::content_name(snapshot)));
        });
        let queue = self.queue.clone();
        self.contents.on_change(move |change: &Change<VolumeSnapshotContent>| {
            let content = change.object();
            queue.add(Key::Content(name(&content.metadata).to_owned()));
            let of = &content.spec.volume_snapshot_ref;
            queue.add(Key::Snapshot(of.namespace.clone(), of.name.clone()));
        });
        let this = self.clone();
        self.classes.on_change(move |_: &Change<VolumeSnapshotClass>| this.again(|_| true));
        let this = self.clone();
        self.claims.on_change(move |change: &Change<PersistentVolumeClaim>| {
            let meta = &change.object().metadata;
            this.again(|snapshot| {
                let of = snapshot.spec.source.persistent_volume_claim_name.as_ref();
                of == meta.name.as_ref() && snapshot.metadata.namespace == meta.namespace
            });
        });
    }

    /// Looks again at snapshots that are not ready.
    fn again(&self, which: impl Fn(&Arc<VolumeSnapshot>) -> bool) {
        for snapshot in self.snapshots.list().iter().filter(|snapshot| which(snapshot)) {
            if snapshot.status.ready_to_use != Some(true) {
                self.queue.add(of_snapshot(snapshot));
            }
        }
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        match key {
            Key::Snapshot(space, own) => {
                if let Some(snapshot) = self.snapshots.get(&space, &own) {
                    self.sync_snapshot(&snapshot).await?;
                }
            }
            Key::Content(own) => {
                if let Some(content) = self.contents.get("", &own) {
                    self.sync_content(&content).await?;
                }
            }
        }
        Ok(Action::Done)
    }

    /// Changes an object, if it is there.
    async fn patch<K: Resource>(&self, of: &K, change: Value) -> Result<(), Error> {
        let (meta, patch) = (of.metadata(), Patch::Merge(change));
        let client = &self.context.client;
        match client.patch::<K>(namespace(meta), name(meta), &patch).await {
            Err(error) if error.is_not_found() => Ok(()),
            patched => patched.map(drop),
        }
    }

    async fn patch_status<K: Resource>(&self, of: &K, status: Value) -> Result<(), Error> {
        let meta = of.metadata();
        let patch = Patch::Merge(json!({"metadata": {"uid": meta.uid}, "status": status}));
        let client = &self.context.client;
        match client.patch_status::<K>(namespace(meta), name(meta), &patch).await {
            Err(error) if error.is_not_found() => Ok(()),
            patched => patched.map(drop),
        }
    }

    /// Adds and removes finalizers; others stay.
    async fn set_finalizers<K: Resource>(
        &self,
        of: &K,
        own: &[&str],
        held: bool,
    ) -> Result<(), Error> {
        let meta = of.metadata();
        let before = meta.finalizers.clone().unwrap_or_default();
        let mut after = before.clone();
        after.retain(|finalizer| !own.contains(&finalizer.as_str()));
        if held {
            after.extend(own.iter().map(|finalizer| (*finalizer).to_owned()));
            // The order does not matter.
            if own.iter().all(|finalizer| before.iter().any(|known| known == finalizer)) {
                return Ok(());
            }
        }
        if before == after {
            return Ok(());
        }
        let change = json!({"metadata": {"uid": meta.uid, "finalizers": after,
            "resourceVersion": meta.resource_version}});
        self.patch(of, change).await
    }
}
