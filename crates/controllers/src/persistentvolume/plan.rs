//! Which volume fits a claim, and what both look like when they are bound.

use std::sync::Arc;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec,
    PersistentVolumeClaimStatus, PersistentVolumeSpec,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::meta::{Map, matches, name, namespace, reference, selector, uid};

pub(crate) const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
pub(crate) const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
pub(crate) const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const PROVISIONER: [&str; 2] =
    ["volume.beta.kubernetes.io/storage-provisioner", "volume.kubernetes.io/storage-provisioner"];
const DEFAULT_CLASS: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];
/// Capacity of a volume before it grew, while its file system has not.
const BEFORE_RESIZE: &str = "volume.alpha.kubernetes.io/pre-resize-capacity";

pub(crate) fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a String> {
    meta.annotations.as_ref().and_then(|a| a.get(key))
}

pub(crate) fn claim_spec(claim: &PersistentVolumeClaim) -> PersistentVolumeClaimSpec {
    claim.spec.clone().unwrap_or_default()
}

fn volume_spec(volume: &PersistentVolume) -> &PersistentVolumeSpec {
    static EMPTY: std::sync::LazyLock<PersistentVolumeSpec> =
        std::sync::LazyLock::new(PersistentVolumeSpec::default);
    volume.spec.as_ref().unwrap_or(&EMPTY)
}

/// The class's name; blank if the claim wants none.
pub(crate) fn class_of(claim: &PersistentVolumeClaim) -> String {
    let spec = claim.spec.as_ref().and_then(|s| s.storage_class_name.clone());
    annotation(&claim.metadata, CLASS).cloned().or(spec).unwrap_or_default()
}

pub(crate) fn class_of_volume(volume: &PersistentVolume) -> String {
    let spec = volume_spec(volume).storage_class_name.clone();
    annotation(&volume.metadata, CLASS).cloned().or(spec).unwrap_or_default()
}

/// Whether the scheduler decides, because the class waits for the first pod.
pub(crate) fn is_delayed(class: Option<&StorageClass>) -> bool {
    class.and_then(|c| c.volume_binding_mode.as_deref()) == Some("WaitForFirstConsumer")
}

/// Whether the scheduler has chosen a node for a volume to be made.
pub(crate) fn has_node(claim: &PersistentVolumeClaim) -> bool {
    annotation(&claim.metadata, SELECTED_NODE).is_some()
}

/// Whether the volume is meant for the claim, by name and, if it is known, by uid.
pub(crate) fn is_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(of) = &volume_spec(volume).claim_ref else { return false };
    let named = of.name == claim.metadata.name && of.namespace == claim.metadata.namespace;
    let known = of.uid.as_deref().unwrap_or("");
    named && (known.is_empty() || known == uid(&claim.metadata))
}

/// Nonsense counts as nothing; the API refuses it.
fn bytes(amount: Option<&Amount>) -> i64 {
    amount.and_then(|a| Quantity::parse(&a.0).ok()).map_or(0, |q| q.value())
}

fn mode(of: Option<&String>) -> &str {
    of.map_or("Filesystem", String::as_str)
}

/// Why the volume does not do for the claim; a part of an event.
pub(crate) fn mismatch(
    volume: &PersistentVolume,
    claim: &PersistentVolumeClaim,
) -> Result<(), String> {
    let (has, wants) = (volume_spec(volume), claim_spec(claim));
    let requests = wants.resources.as_ref().and_then(|r| r.requests.as_ref());
    let wanted = bytes(requests.and_then(|r| r.get("storage")));
    let there = bytes(has.capacity.as_ref().and_then(|c| c.get("storage")));
    let modes = has.access_modes.as_deref().unwrap_or_default();
    let attributes = |class: &Option<String>| class.clone().unwrap_or_default();
    let same_attributes = attributes(&has.volume_attributes_class_name)
        == attributes(&wants.volume_attributes_class_name);
    let refuse = |when: bool, why: &str| if when { Err(why.to_owned()) } else { Ok(()) };
    if volume.metadata.deletion_timestamp.is_some() {
        return Err(format!("the volume is marked for deletion {:?}", name(&volume.metadata)));
    }
    refuse(there < wanted, "requested PV is too small")?;
    refuse(class_of_volume(volume) != class_of(claim), "storageClassName does not match")?;
    refuse(!same_attributes, "volumeAttributesClassName does not match")?;
    let same_mode = mode(has.volume_mode.as_ref()) == mode(wants.volume_mode.as_ref());
    refuse(!same_mode, "incompatible volumeMode")?;
    let has_modes = wants.access_modes.iter().flatten().all(|m| modes.contains(m));
    refuse(!has_modes, "incompatible accessMode")
}

pub(crate) fn modes_differ(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    mode(volume_spec(volume).volume_mode.as_ref()) != mode(claim_spec(claim).volume_mode.as_ref())
}

pub(crate) fn phase(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("")
}

/// The volume for a claim that asks for none by name: one that is meant for it, or else the smallest
/// that does. With a delayed class only the former: the scheduler looks for the latter.
pub(crate) fn best<'a>(
    claim: &PersistentVolumeClaim,
    volumes: &'a [Arc<PersistentVolume>],
    delayed: bool,
) -> Option<&'a Arc<PersistentVolume>> {
    let wanted = claim_spec(claim).selector.as_ref().map(selector);
    let fits = |v: &&Arc<PersistentVolume>| {
        let free = volume_spec(v).claim_ref.is_none() && phase(v) == "Available";
        let labelled = wanted.as_ref().is_none_or(|s| matches(s, v.metadata.labels.as_ref()));
        free && labelled && mismatch(v, claim).is_ok()
    };
    // Meant for the claim: its class does not matter.
    let meant = |v: &&Arc<PersistentVolume>| {
        let why = mismatch(v, claim).err();
        is_for(v, claim) && why.is_none_or(|why| why == "storageClassName does not match")
    };
    let size = |v: &&Arc<PersistentVolume>| {
        bytes(volume_spec(v).capacity.as_ref().and_then(|c| c.get("storage")))
    };
    let smallest = || volumes.iter().filter(fits).min_by_key(size);
    volumes.iter().find(meant).or_else(|| if delayed { None } else { smallest() })
}

fn annotate(meta: &mut ObjectMeta, key: &str, value: &str) {
    meta.annotations.get_or_insert_default().insert(key.into(), value.into());
}

/// The volume bound to the claim; `None` if it is.
pub(crate) fn bound_volume(
    volume: &PersistentVolume,
    claim: &PersistentVolumeClaim,
) -> Option<PersistentVolume> {
    let mut new = volume.clone();
    let by_user = is_for(volume, claim);
    if !by_user {
        annotate(&mut new.metadata, BOUND_BY_CONTROLLER, "yes");
    }
    let of = volume_spec(volume).claim_ref.as_ref();
    if !by_user || of.and_then(|r| r.uid.as_deref()) != Some(uid(&claim.metadata)) {
        new.spec.get_or_insert_default().claim_ref = Some(reference(claim));
    }
    (new != *volume).then_some(new)
}

/// The claim bound to the volume; `None` if it is.
pub(crate) fn bound_claim(
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
) -> Option<PersistentVolumeClaim> {
    let mut new = claim.clone();
    let spec = new.spec.get_or_insert_default();
    if spec.volume_name != volume.metadata.name {
        spec.volume_name = volume.metadata.name.clone();
        annotate(&mut new.metadata, BOUND_BY_CONTROLLER, "yes");
    }
    annotate(&mut new.metadata, BIND_COMPLETED, "yes");
    (new != *claim).then_some(new)
}

/// The claim's status with this phase; `None` if it has it.
pub(crate) fn claim_status(
    claim: &PersistentVolumeClaim,
    phase: &str,
    volume: Option<&PersistentVolume>,
) -> Option<PersistentVolumeClaimStatus> {
    let old = claim.status.clone().unwrap_or_default();
    let mut new = old.clone();
    let enters = old.phase.as_deref() != Some(phase);
    new.phase = Some(phase.into());
    match volume {
        None => {
            new.access_modes = None;
            new.capacity = None;
            new.current_volume_attributes_class_name = None;
        }
        Some(volume) => {
            let has = volume_spec(volume);
            new.access_modes = has.access_modes.clone();
            // Later the file system's size may differ from the volume's on purpose.
            if enters {
                new.capacity = has.capacity.clone();
                if let Some(before) = annotation(&volume.metadata, BEFORE_RESIZE) {
                    let capacity = new.capacity.get_or_insert_default();
                    capacity.insert("storage".into(), Amount(before.clone()));
                }
            }
            if old.phase.as_deref() == Some("Pending") && phase == "Bound" {
                new.current_volume_attributes_class_name = has.volume_attributes_class_name.clone();
            }
        }
    }
    (new != old).then_some(new)
}

/// The volume let go: free again, or still meant for the claim that its user named.
pub(crate) fn unbound_volume(volume: &PersistentVolume) -> PersistentVolume {
    let mut new = volume.clone();
    let spec = new.spec.get_or_insert_default();
    if annotation(&volume.metadata, BOUND_BY_CONTROLLER).is_some() {
        spec.claim_ref = None;
        let annotations = new.metadata.annotations.get_or_insert_default();
        annotations.remove(BOUND_BY_CONTROLLER);
        new.metadata.annotations = new.metadata.annotations.filter(|a: &Map| !a.is_empty());
    } else if let Some(claim) = &mut spec.claim_ref {
        claim.uid = None;
    }
    new
}

/// The claim with its provisioner named, which is how an external one knows; `None` if it is.
pub(crate) fn with_provisioner(
    claim: &PersistentVolumeClaim,
    provisioner: &str,
) -> Option<PersistentVolumeClaim> {
    let mut new = claim.clone();
    PROVISIONER.iter().for_each(|key| annotate(&mut new.metadata, key, provisioner));
    (new != *claim).then_some(new)
}

/// The default class: of several the newest.
pub(crate) fn default_class(classes: &[Arc<StorageClass>]) -> Option<&Arc<StorageClass>> {
    let is_default = |c: &&Arc<StorageClass>| {
        DEFAULT_CLASS.iter().any(|key| annotation(&c.metadata, key).is_some_and(|v| v == "true"))
    };
    classes.iter().filter(is_default).min_by_key(|c| {
        let created = c.metadata.creation_timestamp.as_ref().map(|t| t.0);
        (std::cmp::Reverse(created), name(&c.metadata).to_owned())
    })
}

/// Whether a claim has no class, not even the blank one.
pub(crate) fn lacks_class(claim: &PersistentVolumeClaim) -> bool {
    let spec = claim.spec.as_ref();
    annotation(&claim.metadata, CLASS).is_none()
        && spec.is_none_or(|s| s.storage_class_name.is_none())
}

/// Why nobody deletes the volume; `None` if an external provisioner does.
pub(crate) fn undeletable(volume: &PersistentVolume) -> Option<String> {
    let by = annotation(&volume.metadata, PROVISIONED_BY);
    let spec = volume_spec(volume);
    if by.is_some_and(|by| !by.starts_with("kubernetes.io/")) || spec.csi.is_some() {
        return None;
    }
    let own = name(&volume.metadata);
    Some(format!(
        "error getting deleter volume plugin for volume {own:?}: no deletable volume plugin matched"
    ))
}

pub(crate) fn claim_key(volume: &PersistentVolume) -> Option<(String, String)> {
    let of = volume_spec(volume).claim_ref.as_ref()?;
    Some((of.namespace.clone()?, of.name.clone()?))
}

pub(crate) fn reclaim_policy(volume: &PersistentVolume) -> &str {
    volume_spec(volume).persistent_volume_reclaim_policy.as_deref().unwrap_or("Retain")
}

pub(crate) fn claim_uid(volume: &PersistentVolume) -> &str {
    let of = volume_spec(volume).claim_ref.as_ref();
    of.and_then(|r| r.uid.as_deref()).unwrap_or("")
}

pub(crate) fn key_text(claim: &PersistentVolumeClaim) -> String {
    format!("{}/{}", namespace(&claim.metadata), name(&claim.metadata))
}
