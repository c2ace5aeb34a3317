//! Whether a claim is this node's to provision, what the driver is asked, and the volume's object. Pure.

use std::collections::BTreeMap;

use csi::v1::*;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::json;

use crate::claims::{access_type, amount, capabilities, capacity_range};
use crate::context::{Config, Context};
use crate::metadata::{annotation, name, namespace, uid};

pub(super) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const PROVISIONER_BETA: &str = "volume.beta.kubernetes.io/storage-provisioner";
const CLASS_BETA: &str = "volume.beta.kubernetes.io/storage-class";
pub(super) const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
pub(super) const FINALIZER: &str = "external-provisioner.volume.kubernetes.io/finalizer";
/// Parameters of storage classes that are the provisioner's, not the driver's.
const RESERVED: &str = "csi.storage.k8s.io/";
const FS_TYPE: &str = "csi.storage.k8s.io/fstype";

/// Whose turn it is with a claim.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    NotOurs,
    /// The first node that takes it.
    First,
    Ours,
}

pub(super) fn class_of(claim: &PersistentVolumeClaim) -> &str {
    let beta = annotation(&claim.metadata, CLASS_BETA);
    let class = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    beta.or(class).unwrap_or("")
}

pub(super) fn is_delayed(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

/// The name of the volume that a claim gets.
pub(super) fn volume_name(claim: &PersistentVolumeClaim) -> String {
    format!("pvc-{}", uid(&claim.metadata))
}

pub(super) fn turn(claim: &PersistentVolumeClaim, class: &StorageClass, config: &Config) -> Turn {
    let meta = &claim.metadata;
    let bound = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
    let asked = annotation(meta, PROVISIONER).or_else(|| annotation(meta, PROVISIONER_BETA));
    let ours = asked == Some(&config.driver) && class.provisioner == config.driver;
    if !ours || bound.is_some_and(|bound| !bound.is_empty()) {
        return Turn::NotOurs;
    }
    match annotation(meta, SELECTED_NODE).filter(|node| !node.is_empty()) {
        Some(node) if node == config.node => Turn::Ours,
        Some(_) => Turn::NotOurs,
        None if is_delayed(class) => Turn::NotOurs,
        None => Turn::First,
    }
}

/// Whether a class allows volumes at a place.
pub(super) fn is_allowed(class: &StorageClass, topology: &Topology) -> bool {
    let Some(terms) = class.allowed_topologies.as_ref().filter(|terms| !terms.is_empty()) else {
        return true;
    };
    terms.iter().any(|term| {
        let asked = term.match_label_expressions.iter().flatten();
        asked
            .into_iter()
            .all(|e| topology.segments.get(&e.key).is_some_and(|v| e.values.contains(v)))
    })
}

pub(super) fn request(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    context: &Context,
) -> Result<CreateVolumeRequest, String> {
    let spec = claim.spec.as_ref().ok_or("the claim has no spec")?;
    if spec.selector.is_some() {
        return Err("claim Selector is not supported".into());
    }
    if !is_allowed(class, &context.topology) {
        return Err(format!(
            "node {} is not in the class's allowedTopologies",
            context.config.node
        ));
    }
    let flags = class.mount_options.as_deref().unwrap_or_default();
    let kind = access_type(spec.volume_mode.as_deref(), fs_type(class), flags);
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    let here = vec![context.topology.clone()];
    Ok(CreateVolumeRequest {
        name: volume_name(claim),
        capacity_range: Some(capacity_range(claim)),
        volume_capabilities: capabilities(modes, &kind, context.single_node_multi_writer)?,
        parameters: parameters(claim, class)?,
        secrets: Vec::new(),
        volume_content_source: None,
        accessibility_requirements: Some(TopologyRequirement {
            requisite: here.clone(),
            preferred: here,
        }),
        mutable_parameters: BTreeMap::new(),
    })
}

fn fs_type(class: &StorageClass) -> &str {
    class.parameters.as_ref().and_then(|of| of.get(FS_TYPE)).map_or("", String::as_str)
}

/// The class's parameters for the driver, and who the volume is for (`--extra-create-metadata`).
fn parameters(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
) -> Result<BTreeMap<String, String>, String> {
    let mut parameters = BTreeMap::new();
    for (key, value) in class.parameters.iter().flatten() {
        match key.strip_prefix(RESERVED) {
            None => drop(parameters.insert(key.clone(), value.clone())),
            Some("fstype") => {}
            // Also those of secrets: this driver has none, and would not use what users rely on.
            Some(_) => {
                return Err(format!(
                    "found unknown parameter key {key:?} with reserved namespace {RESERVED}"
                ));
            }
        }
    }
    let mut put = |key: &str, value: &str| {
        parameters.insert(format!("{RESERVED}{key}"), value.to_owned());
    };
    put("pvc/name", name(&claim.metadata));
    put("pvc/namespace", namespace(&claim.metadata));
    put("pv/name", &volume_name(claim));
    Ok(parameters)
}

/// The object of a volume that was made.
pub(super) fn volume(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    made: &Volume,
    driver: &str,
) -> Result<PersistentVolume, String> {
    let spec = claim.spec.as_ref().ok_or("the claim has no spec")?;
    let is_block = spec.volume_mode.as_deref() == Some("Block");
    let mut csi = json!({"driver": driver, "volumeHandle": made.volume_id,
        "volumeAttributes": made.volume_context});
    if !is_block && !fs_type(class).is_empty() {
        csi["fsType"] = fs_type(class).into();
    }
    let object = json!({
        "metadata": {
            "name": volume_name(claim),
            "annotations": {PROVISIONED_BY: driver},
            "finalizers": [FINALIZER],
        },
        "spec": {
            "capacity": {"storage": amount(made.capacity_bytes)},
            "accessModes": spec.access_modes,
            "volumeMode": spec.volume_mode.as_deref().unwrap_or("Filesystem"),
            "mountOptions": class.mount_options,
            "persistentVolumeReclaimPolicy": class.reclaim_policy.as_deref().unwrap_or("Delete"),
            "storageClassName": class_of(claim),
            "volumeAttributesClassName": spec.volume_attributes_class_name.as_ref().filter(|n| !n.is_empty()),
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "namespace": claim.metadata.namespace, "name": claim.metadata.name,
                "uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version},
            "csi": csi,
            "nodeAffinity": affinity(&made.accessible_topology),
        },
    });
    serde_json::from_value(object).map_err(|error| error.to_string())
}

fn affinity(topologies: &[Topology]) -> serde_json::Value {
    let term = |topology: &Topology| {
        let all = topology.segments.iter();
        let all = all.map(|(key, value)| json!({"key": key, "operator": "In", "values": [value]}));
        json!({"matchExpressions": all.collect::<Vec<_>>()})
    };
    match topologies {
        [] => serde_json::Value::Null,
        all => json!({"required": {"nodeSelectorTerms": all.iter().map(term).collect::<Vec<_>>()}}),
    }
}
