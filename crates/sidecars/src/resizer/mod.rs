//! The resizer: volumes grow as their claims ask, and get the attributes of their class.
//!
//! What is being done is kept in the claim's status (`allocatedResources`, `allocatedResourceStatuses`), so
//! that a claim whose growth failed can ask for less, and quota counts what was tried.

mod modify;
mod status;
#[cfg(test)]
mod tests;

use client::{Action, Change, Error, Informer, Patch, Queue, run_workers};
use csi::v1::ControllerExpandVolumeRequest;
use grpc::{CallError, Code};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use serde_json::{Value, json};

use crate::claims::{amount, handle, is_at, requested, storage};
use crate::context::Context;
use crate::metadata::{name, namespace, uid};

const WORKERS: usize = 4;

type Key = (String, String);

pub(crate) async fn run(context: &Context) {
    let this = Resizer {
        context: context.clone(),
        claims: context.informers.of(),
        volumes: context.informers.of(),
        classes: context.informers.of(),
        queue: Queue::new(),
    };
    let queue = this.queue.clone();
    this.claims.on_change(move |change: &Change<PersistentVolumeClaim>| {
        let meta = &change.object().metadata;
        queue.add((namespace(meta).to_owned(), name(meta).to_owned()));
    });
    this.claims.synced().await;
    this.volumes.synced().await;
    this.classes.synced().await;
    let queue = this.queue.clone();
    run_workers("external-resizer", queue, WORKERS, |key| this.reconcile(key)).await;
}

#[derive(Clone)]
struct Resizer {
    context: Context,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<VolumeAttributesClass>,
    queue: Queue<Key>,
}

/// Whether the driver will refuse the same again, whatever happens meanwhile (upstream's
/// `IsInfeasibleError`).
fn is_infeasible(error: &CallError) -> bool {
    let CallError::Refused { code, .. } = error else { return false };
    [Code::InvalidArgument, Code::OutOfRange, Code::NotFound].iter().any(|c| *c as u32 == *code)
}

/// What a claim's volume is still to become.
#[derive(Debug, PartialEq, Eq)]
enum Growth {
    None,
    /// The driver makes it larger.
    Controller(i64),
    /// Only its node is left to do something.
    Node,
}

fn growth(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Growth {
    let status = claim.status.as_ref();
    let wanted = requested(claim);
    let has = storage(status.and_then(|status| status.capacity.as_ref()));
    let volume_has = storage(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()));
    let resizing = status::resize_status(claim);
    match () {
        () if wanted <= has => Growth::None,
        // The volume is as large already: its file system follows.
        () if wanted <= volume_has => match resizing {
            Some(status::NODE_PENDING | status::NODE_IN_PROGRESS | status::NODE_INFEASIBLE) => {
                Growth::Node
            }
            _ => Growth::Controller(wanted),
        },
        () => Growth::Controller(wanted),
    }
}

impl Resizer {
    async fn reconcile(&self, (space, own): Key) -> Result<Action, Error> {
        let Some(claim) = self.claims.get(&space, &own) else { return Ok(Action::Done) };
        let Some(volume) = self.volume_of(&claim) else { return Ok(Action::Done) };
        if claim.metadata.deletion_timestamp.is_some() {
            return Ok(Action::Done);
        }
        if modify::wanted(&claim).is_none() && growth(&claim, &volume) == Growth::None {
            return Ok(Action::Done);
        }
        // As they are now: views may not show the last step yet, which would be done again.
        let Some((claim, volume)) = self.live(&claim, &volume).await? else {
            return Ok(Action::Done);
        };
        self.modify(&claim, &volume).await?;
        match growth(&claim, &volume) {
            Growth::None | Growth::Node => Ok(Action::Done),
            Growth::Controller(size) => self.grow(&claim, &volume, size).await,
        }
    }

    /// The server's own claim and volume; none when they are not those any more.
    async fn live(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
    ) -> Result<Option<(PersistentVolumeClaim, PersistentVolume)>, Error> {
        let (client, meta) = (&self.context.client, &claim.metadata);
        let now = client.get::<PersistentVolumeClaim>(namespace(meta), name(meta)).await;
        let of_claim = client.get::<PersistentVolume>("", name(&volume.metadata)).await;
        match (now, of_claim) {
            (Ok(now), Ok(of_claim)) => {
                let same = now.metadata.uid == meta.uid
                    && of_claim.metadata.uid == volume.metadata.uid
                    && now.metadata.deletion_timestamp.is_none();
                Ok(same.then_some((now, of_claim)))
            }
            (Err(error), _) | (_, Err(error)) if error.is_not_found() => Ok(None),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }

    /// The volume that a claim is bound to, if it is ours.
    fn volume_of(&self, claim: &PersistentVolumeClaim) -> Option<std::sync::Arc<PersistentVolume>> {
        let volume = claim.spec.as_ref()?.volume_name.as_deref()?;
        let volume = self.volumes.get("", volume)?;
        let of = volume.spec.as_ref()?.claim_ref.as_ref()?.uid.as_deref()?;
        let ours = of == uid(&claim.metadata)
            && claim.status.as_ref()?.phase.as_deref() == Some("Bound")
            && handle(&volume, &self.context.config.driver).is_some()
            && is_at(&volume, &self.context.topology);
        ours.then_some(volume)
    }

    async fn grow(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
        size: i64,
    ) -> Result<Action, Error> {
        let own = name(&volume.metadata);
        let claim = self.write(claim, status::started(claim, size)).await?;
        self.context.event(
            &claim,
            "Resizing",
            format!("External resizer is resizing volume {own}"),
        );
        let range = crate::claims::capacity_range(&claim);
        let request = ControllerExpandVolumeRequest {
            volume_id: handle(volume, &self.context.config.driver).unwrap_or_default().to_owned(),
            capacity_range: Some(range),
            ..Default::default()
        };
        match self.context.csi.controller_expand_volume(&request).await {
            Err(error) => self.grow_failed(&claim, own, &error).await,
            Ok(answer) => {
                let bytes = answer.capacity_bytes.max(size);
                let capacity = json!({"spec": {"capacity": {"storage": amount(bytes)}}});
                let patch = Patch::Merge(capacity);
                self.context.client.patch::<PersistentVolume>("", own, &patch).await?;
                self.grown(&claim, bytes, answer.node_expansion_required).await
            }
        }
    }

    async fn grown(
        &self,
        claim: &PersistentVolumeClaim,
        bytes: i64,
        on_node: bool,
    ) -> Result<Action, Error> {
        if on_node {
            self.write(claim, status::node_pending(claim)).await?;
            let message = "Require file system resize of volume on node";
            self.context.event(claim, "FileSystemResizeRequired", message);
        } else {
            self.write(claim, status::finished(claim, bytes)).await?;
            self.context.event(claim, "VolumeResizeSuccessful", "Resize volume succeeded");
        }
        Ok(Action::Done)
    }

    async fn grow_failed(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &str,
        error: &CallError,
    ) -> Result<Action, Error> {
        let driver = &self.context.config.driver;
        let message =
            format!("resize volume {volume:?} by resizer {driver:?} failed: {}", error.go_text());
        self.context.warn(claim, "VolumeResizeFailed", message.clone());
        if is_infeasible(error) {
            self.write(claim, status::infeasible(claim)).await?;
        }
        Err(api::Status::failure(500, "InternalError", message).into())
    }

    async fn write(
        &self,
        claim: &PersistentVolumeClaim,
        status: Value,
    ) -> Result<PersistentVolumeClaim, Error> {
        let meta = &claim.metadata;
        let patch = Patch::Merge(json!({"metadata": {"uid": meta.uid}, "status": status}));
        self.context.client.patch_status(namespace(meta), name(meta), &patch).await
    }
}
