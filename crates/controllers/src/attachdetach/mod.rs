//! Attach/detach: makes a VolumeAttachment for every volume of a CSI driver that must be attached to a node
//! before pods can use it there, tells the node what is attached, and deletes the attachment when nobody
//! there uses the volume any more (`pkg/controller/volume/attachdetach`, `pkg/volume/csi`).
//!
//! Watches Pods, Nodes, VolumeAttachments, PersistentVolumeClaims, PersistentVolumes and CSIDrivers. A node
//! is looked at as a whole.

mod apply;
mod plan;
#[cfg(test)]
mod tests;
mod volumes;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::{Action, Change, Client, Error, Index, IndexKey, Informer, Queue, Recorder};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use tokio::time::Instant;

use self::plan::{Attached, Situation};
use self::volumes::Volume;
use crate::Context;
use crate::harness::{ByNode, Reconciler};
use crate::meta::{name, namespace};
use crate::pods;

const NAME: &str = "persistentvolume-attach-detach-controller";
/// Nodes looked at at once: one write each is under way most of the time.
const WORKERS: usize = 10;

/// Pods by the claims of their volumes.
struct ByClaim;

impl IndexKey<Pod> for ByClaim {
    fn values(pod: &Pod) -> Vec<String> {
        let space = namespace(&pod.metadata);
        volumes::claims(pod).map(|claim| format!("{space}/{claim}")).collect()
    }
}

/// Attachments by their node.
struct OnNode;

impl IndexKey<VolumeAttachment> for OnNode {
    fn values(attachment: &VolumeAttachment) -> Vec<String> {
        vec![attachment.spec.node_name.clone()]
    }
}

/// Attachments by their volume.
struct OfVolume;

impl IndexKey<VolumeAttachment> for OfVolume {
    fn values(attachment: &VolumeAttachment) -> Vec<String> {
        attachment.spec.source.persistent_volume_name.iter().cloned().collect()
    }
}

pub(crate) fn start(context: &Context) {
    let pods = context.informers.of::<Pod>();
    let attachments = context.informers.of::<VolumeAttachment>();
    let this = AttachDetach {
        client: context.client.clone(),
        recorder: context.recorder("attachdetach-controller"),
        nodes: context.informers.of(),
        on_node: pods.index(),
        by_claim: pods.index(),
        pods,
        claims: context.informers.of(),
        volumes: context.informers.of(),
        drivers: context.informers.of(),
        attached_to: attachments.index(),
        attached: attachments.index(),
        attachments,
        memory: Arc::default(),
    };
    let queue = Queue::new();
    this.watch(&queue);
    crate::harness::start(context, NAME, WORKERS, queue, this);
}

/// What is remembered between looks.
#[derive(Debug, Default)]
struct Memory {
    /// By attachment, since when nobody uses it.
    unused: HashMap<String, Instant>,
    /// By attachment, the trouble that was told last.
    told: HashMap<String, String>,
    /// Nodes that wait for volumes attached elsewhere.
    blocked: BTreeSet<String>,
}

#[derive(Clone)]
struct AttachDetach {
    client: Client,
    recorder: Recorder,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    on_node: Index<Pod, ByNode>,
    by_claim: Index<Pod, ByClaim>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    drivers: Informer<CSIDriver>,
    attachments: Informer<VolumeAttachment>,
    attached_to: Index<VolumeAttachment, OnNode>,
    attached: Index<VolumeAttachment, OfVolume>,
    memory: Arc<Mutex<Memory>>,
}

impl AttachDetach {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, queue: &Queue<String>) {
        let keys = queue.clone();
        self.pods.on_change(move |change| {
            for pod in [Some(change.object()), change.old()].into_iter().flatten() {
                if !pods::node(pod).is_empty() && volumes::claims(pod).next().is_some() {
                    keys.add(pods::node(pod).to_owned());
                }
            }
        });
        let keys = queue.clone();
        self.nodes.on_change(move |change| {
            let node = change.object();
            let same = change.old().is_some_and(|old| volumes::facts(old) == volumes::facts(node));
            if !same || matches!(change, Change::Deleted(_)) {
                keys.add(name(&node.metadata).to_owned());
            }
        });
        let (this, keys) = (self.clone(), queue.clone());
        self.attachments.on_change(move |change| {
            let attachment = change.object();
            keys.add(attachment.spec.node_name.clone());
            if matches!(change, Change::Deleted(_)) {
                let mut memory = this.memory();
                memory.unused.remove(name(&attachment.metadata));
                memory.blocked.iter().for_each(|node| keys.add(node.clone()));
            }
        });
        let (this, keys) = (self.clone(), queue.clone());
        self.claims.on_change(move |change| {
            let meta = &change.object().metadata;
            this.add_users(namespace(meta), name(meta), &keys);
        });
        let (this, keys) = (self.clone(), queue.clone());
        self.volumes.on_change(move |change| {
            let spec = change.object().spec.as_ref();
            let Some(claim) = spec.and_then(|s| s.claim_ref.as_ref()) else { return };
            let text = |of: &Option<String>| of.clone().unwrap_or_default();
            this.add_users(&text(&claim.namespace), &text(&claim.name), &keys);
        });
        let (nodes, keys) = (self.nodes.clone(), queue.clone());
        self.drivers.on_change(move |_| {
            nodes.list().iter().for_each(|node| keys.add(name(&node.metadata).to_owned()));
        });
    }

    /// Queues the nodes of pods that use the claim.
    fn add_users(&self, space: &str, claim: &str, keys: &Queue<String>) {
        for pod in self.by_claim.get(&format!("{space}/{claim}")) {
            if !pods::node(&pod).is_empty() {
                keys.add(pods::node(&pod).to_owned());
            }
        }
    }

    /// The volumes that pods on the node need attached, by attachment.
    fn wanted(&self, node: &Node) -> BTreeMap<String, Volume> {
        let own = name(&node.metadata);
        let mut wanted: BTreeMap<String, Volume> = BTreeMap::new();
        if !volumes::is_managed(node) {
            return wanted;
        }
        for pod in self.on_node.get(own) {
            if volumes::is_terminated(&pod) && !volumes::keeps_terminated(node) {
                continue;
            }
            for claim in volumes::claims(&pod) {
                if let Some(volume) = self.volume(namespace(&pod.metadata), &claim, own) {
                    let entry = wanted.entry(volume.attachment.clone()).or_insert(volume);
                    entry.pods.push(pod.clone());
                }
            }
        }
        wanted
    }

    /// The volume behind a claim, if it is of a driver that attaches.
    fn volume(&self, space: &str, claim: &str, node: &str) -> Option<Volume> {
        let claim = self.claims.get(space, claim)?;
        let bound = claim.spec.as_ref()?.volume_name.as_deref().filter(|n| !n.is_empty())?;
        let volume = Volume::of(&*self.volumes.get("", bound)?, node)?;
        let driver = self.drivers.get("", &volume.driver);
        // A driver that does not say is taken to attach.
        let attaches = driver.and_then(|d| d.spec.attach_required).unwrap_or(true);
        attaches.then_some(volume)
    }

    /// Attachments on the node that this controller makes.
    fn existing(&self, node: &str) -> Vec<Attached> {
        let ours = |a: &Arc<VolumeAttachment>| volumes::is_ours(name(&a.metadata));
        let all = self.attached_to.get(node);
        let read = |attachment: &Arc<VolumeAttachment>| {
            let source = attachment.spec.source.persistent_volume_name.as_deref();
            let volume = source.and_then(|source| self.volumes.get("", source));
            Attached {
                unique: volume.and_then(|v| Some(Volume::of(&v, node)?.unique)),
                attachment: attachment.clone(),
            }
        };
        all.iter().filter(|a| ours(a)).map(read).collect()
    }

    /// Other nodes that the volume is attached to, or is being attached to.
    fn elsewhere(&self, volume: &Volume, node: &str) -> Vec<String> {
        let all = self.attached.get(&volume.name);
        let others = all.iter().map(|a| a.spec.node_name.clone()).filter(|other| other != node);
        others.collect()
    }

    /// How long the attachment has not been used; it is remembered from the first time on.
    fn unused_for(&self, attachment: &str) -> Duration {
        let now = Instant::now();
        now - *self.memory().unused.entry(attachment.to_owned()).or_insert(now)
    }
}

impl Reconciler for AttachDetach {
    type Key = String;

    async fn synced(&self) {
        self.nodes.synced().await;
        self.pods.synced().await;
        self.claims.synced().await;
        self.volumes.synced().await;
        self.drivers.synced().await;
        self.attachments.synced().await;
    }

    async fn reconcile(&self, own: String) -> Result<Action, Error> {
        let node = self.nodes.get("", &own);
        let wanted = node.as_ref().map(|node| self.wanted(node)).unwrap_or_default();
        let situation = Situation {
            node: node.as_deref(),
            existing: self.existing(&own),
            unused_for: &|attachment| self.unused_for(attachment),
            elsewhere: &|volume| self.elsewhere(volume, &own),
            wanted,
        };
        let plan = plan::plan(situation);
        self.apply(&own, node.as_deref(), plan).await
    }
}
