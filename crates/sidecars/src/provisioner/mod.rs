//! The provisioner: makes volumes for claims, and deletes volumes that claims have left.

mod delete;
mod plan;
mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use client::{Action, Change, Error, Informer, Patch, Queue, run_workers};
use csi::v1::{CreateVolumeRequest, DeleteVolumeRequest};
use grpc::{CallError, Code};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{StorageClass, VolumeAttributesClass};
use serde_json::json;

use self::plan::{SELECTED_NODE, Turn, volume_name};
use crate::context::Context;
use crate::metadata::{name, namespace, uid};
use crate::snapshotter::types::{VolumeSnapshot, VolumeSnapshotContent};

/// Claims and volumes that are worked on together.
const WORKERS: usize = 4;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Claim(String, String),
    Volume(String),
}

pub(crate) async fn run(context: &Context) {
    let this = Provisioner {
        context: context.clone(),
        claims: context.informers.of(),
        volumes: context.informers.of(),
        classes: context.informers.of(),
        attributes: context.informers.of(),
        snapshots: context.informers.of(),
        contents: context.informers.of(),
        queue: Queue::new(),
        begun: Arc::default(),
    };
    this.watch();
    this.claims.synced().await;
    this.volumes.synced().await;
    this.classes.synced().await;
    this.attributes.synced().await;
    let queue = this.queue.clone();
    run_workers("external-provisioner", queue, WORKERS, |key| this.reconcile(key)).await;
}

/// Namespace and name of claims for which a volume may have been made, with the volume's name.
type Begun = Arc<Mutex<BTreeMap<(String, String), String>>>;

#[derive(Clone)]
struct Provisioner {
    context: Context,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    attributes: Informer<VolumeAttributesClass>,
    snapshots: Informer<VolumeSnapshot>,
    contents: Informer<VolumeSnapshotContent>,
    queue: Queue<Key>,
    begun: Begun,
}

/// Why there is no volume.
enum Failed {
    /// There may be one, or be one soon: the same call is made again.
    Unknown(String),
    /// There is none; with what this node has, there will be none.
    NoRoom(String),
    Refused(String),
}

impl Failed {
    fn of(error: &CallError) -> Failed {
        let text = error.go_text();
        match error {
            CallError::Refused { code, .. } => match *code {
                code if code == Code::ResourceExhausted as u32 => Failed::NoRoom(text),
                code if code == Code::Canceled as u32
                    || code == Code::DeadlineExceeded as u32
                    || code == Code::Unavailable as u32
                    || code == Code::Aborted as u32 =>
                {
                    Failed::Unknown(text)
                }
                _ => Failed::Refused(text),
            },
            CallError::Unreachable(_) => Failed::Refused(text),
            CallError::Lost(_) | CallError::Late(_) => Failed::Unknown(text),
        }
    }

    fn text(&self) -> &str {
        match self {
            Failed::Unknown(text) | Failed::NoRoom(text) | Failed::Refused(text) => text,
        }
    }
}

impl Provisioner {
    fn watch(&self) {
        let queue = self.queue.clone();
        self.claims.on_change(move |change: &Change<PersistentVolumeClaim>| {
            let meta = &change.object().metadata;
            queue.add(Key::Claim(namespace(meta).to_owned(), name(meta).to_owned()));
        });
        let queue = self.queue.clone();
        self.volumes.on_change(move |change: &Change<PersistentVolume>| {
            queue.add(Key::Volume(name(&change.object().metadata).to_owned()));
        });
        // A claim may have waited for its class.
        let this = self.clone();
        self.classes.on_change(move |change: &Change<StorageClass>| {
            let class = name(&change.object().metadata);
            for claim in this.claims.list().iter().filter(|claim| plan::class_of(claim) == class) {
                let meta = &claim.metadata;
                this.queue.add(Key::Claim(namespace(meta).to_owned(), name(meta).to_owned()));
            }
        });
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        match key {
            Key::Claim(space, own) => match self.claims.get(&space, &own) {
                Some(claim) if claim.metadata.deletion_timestamp.is_none() => {
                    self.sync_claim(&claim).await
                }
                _ => self.abandon(&space, &own).await,
            },
            Key::Volume(own) => match self.volumes.get("", &own) {
                Some(volume) => self.sync_volume(&volume).await,
                None => Ok(Action::Done),
            },
        }
    }

    async fn sync_claim(&self, claim: &PersistentVolumeClaim) -> Result<Action, Error> {
        let own_name = volume_name(claim);
        if self.volumes.get("", &own_name).is_some() {
            self.forget(claim);
            return Ok(Action::Done);
        }
        let Some(class) = self.classes.get("", plan::class_of(claim)) else {
            // The binder tells of a class that is missing.
            return Ok(Action::Done);
        };
        match plan::turn(claim, &class, &self.context.config) {
            Turn::NotOurs => Ok(Action::Done),
            Turn::First => self.take(claim, &class).await,
            Turn::Ours => self.provision(claim, &class).await,
        }
    }

    /// A claim that is bound at once has no node yet: the node that has room and is first has it.
    async fn take(
        &self,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
    ) -> Result<Action, Error> {
        if !self.may_have(claim, class).await {
            return Ok(Action::Done);
        }
        let node = &self.context.config.node;
        let mut new = claim.clone();
        let annotations = new.metadata.annotations.get_or_insert_default();
        annotations.insert(SELECTED_NODE.to_owned(), node.clone());
        match self.context.client.update(&new).await {
            // Another node was faster, or the claim changed: the change brings it back.
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(Action::Done),
            taken => taken.map(|_| Action::Done),
        }
    }

    async fn may_have(&self, claim: &PersistentVolumeClaim, class: &StorageClass) -> bool {
        let question = csi::v1::GetCapacityRequest {
            accessible_topology: Some(self.context.topology.clone()),
            ..Default::default()
        };
        let allowed = plan::is_allowed(class, &self.context.topology);
        let free = self.context.csi.get_capacity(&question).await;
        allowed && free.is_ok_and(|free| free.available_capacity >= crate::claims::requested(claim))
    }

    async fn provision(
        &self,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
    ) -> Result<Action, Error> {
        let meta = &claim.metadata;
        let text = format!("{}/{}", namespace(meta), name(meta));
        let message = format!("External provisioner is provisioning volume for claim \"{text}\"");
        self.context.event(claim, "Provisioning", message);
        match self.make(claim, class).await {
            Ok(made) => self.keep(claim, made).await,
            Err(failed) => {
                let why = failed.text();
                let class_name = name(&class.metadata);
                let message =
                    format!("failed to provision volume with StorageClass {class_name:?}: {why}");
                self.context.warn(claim, "ProvisioningFailed", message.clone());
                if matches!(failed, Failed::NoRoom(_)) && plan::is_delayed(class) {
                    return self.reschedule(claim).await;
                }
                Err(api::Status::failure(500, "InternalError", message).into())
            }
        }
    }

    /// A volume for the claim.
    async fn make(
        &self,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
    ) -> Result<PersistentVolume, Failed> {
        let request = self.request(claim, class).map_err(Failed::Refused)?;
        let key = (namespace(&claim.metadata).to_owned(), name(&claim.metadata).to_owned());
        self.begun().insert(key, request.name.clone());
        let answer = self.context.csi.create_volume(&request).await;
        let answer = answer.map_err(|error| {
            let failed = Failed::of(&error);
            if !matches!(failed, Failed::Unknown(_)) {
                self.forget(claim);
            }
            failed
        })?;
        let volume = answer.volume.unwrap_or_default();
        plan::volume(claim, class, &volume, &self.context.config.driver).map_err(Failed::Unknown)
    }

    fn request(
        &self,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
    ) -> Result<CreateVolumeRequest, String> {
        let mut request = plan::request(claim, class, &self.context)?;
        request.volume_content_source = self.source(claim)?;
        if let Some(wanted) =
            claim.spec.as_ref().and_then(|s| s.volume_attributes_class_name.as_ref())
            && !wanted.is_empty()
        {
            let class = self.attributes.get("", wanted);
            let class = class.ok_or_else(|| {
                format!("volumeattributesclass.storage.k8s.io {wanted:?} not found")
            })?;
            if class.driver_name != self.context.config.driver {
                return Err(format!(
                    "VAC {wanted} referenced in PVC is for driver {} which does not match driver name {}",
                    class.driver_name, self.context.config.driver
                ));
            }
            request.mutable_parameters = class.parameters.clone().unwrap_or_default();
        }
        Ok(request)
    }

    async fn keep(
        &self,
        claim: &PersistentVolumeClaim,
        volume: PersistentVolume,
    ) -> Result<Action, Error> {
        match self.context.client.create("", &volume).await {
            Err(error) if error.is_already_exists() => {}
            made => drop(made?),
        }
        self.forget(claim);
        let message = format!("Successfully provisioned volume {}", name(&volume.metadata));
        self.context.event(claim, "ProvisioningSucceeded", message);
        Ok(Action::Done)
    }

    /// Lets the scheduler choose again: this node has no room.
    async fn reschedule(&self, claim: &PersistentVolumeClaim) -> Result<Action, Error> {
        let gone = json!({"metadata": {"annotations": {SELECTED_NODE: null},
            "resourceVersion": claim.metadata.resource_version}});
        let (meta, gone) = (&claim.metadata, Patch::Merge(gone));
        let client = &self.context.client;
        let patched = client.patch::<PersistentVolumeClaim>(namespace(meta), name(meta), &gone);
        match patched.await {
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(Action::Done),
            patched => patched.map(|_| Action::Done),
        }
    }

    fn begun(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, String), String>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, claim: &PersistentVolumeClaim) {
        let meta = &claim.metadata;
        self.begun().remove(&(namespace(meta).to_owned(), name(meta).to_owned()));
    }

    /// A claim went while its volume was made: there may be a volume without an object, which nobody else
    /// would delete.
    async fn abandon(&self, space: &str, own: &str) -> Result<Action, Error> {
        let key = (space.to_owned(), own.to_owned());
        let Some(volume_id) = self.begun().get(&key).cloned() else { return Ok(Action::Done) };
        if self.volumes.get("", &volume_id).is_none() {
            let request = DeleteVolumeRequest { volume_id, secrets: Vec::new() };
            if let Err(error) = self.context.csi.delete_volume(&request).await {
                return Err(api::Status::failure(500, "InternalError", error.go_text()).into());
            }
        }
        self.begun().remove(&key);
        Ok(Action::Done)
    }
}

/// For messages: who a claim is.
fn text(claim: &PersistentVolumeClaim) -> String {
    format!("{}/{} ({})", namespace(&claim.metadata), name(&claim.metadata), uid(&claim.metadata))
}
