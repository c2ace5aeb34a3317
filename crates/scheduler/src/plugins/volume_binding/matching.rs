//! Which volumes a pod's claims would have on a node.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{
    Node, PersistentVolume, PersistentVolumeClaim, TopologySelectorTerm,
};
use k8s_openapi::api::storage::v1::{CSIStorageCapacity, StorageClass};
use k8s_openapi::apimachinery::pkg::api::resource;

use super::{Claims, NodePlan, SELECTED_NODE, class_of};
use crate::framework::{Code, Status};
use crate::labels::{Selector, selector_matches};
use crate::node::NodeInfo;
use crate::plugins::names;
use crate::store::Listers;

pub(super) const BIND_CONFLICT: &str = "node(s) didn't find available persistent volumes to bind";
pub(super) const NODE_CONFLICT: &str = "node(s) didn't match PersistentVolume's node affinity";
pub(super) const NO_SPACE: &str = "node(s) did not have enough free storage";
const NO_VOLUME: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
/// A class with this provisioner has none.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

pub(super) fn class_of_volume(volume: &PersistentVolume) -> String {
    let annotated = volume.metadata.annotations.as_ref();
    let annotated = annotated.and_then(|a| a.get("volume.beta.kubernetes.io/storage-class"));
    let spec = volume.spec.as_ref().and_then(|s| s.storage_class_name.as_ref());
    annotated.or(spec).cloned().unwrap_or_default()
}

/// What binding on the node would do, or why it cannot be done there.
pub(super) fn plan(
    listers: &Listers,
    claims: &Claims,
    node: &NodeInfo,
) -> Result<NodePlan, Arc<Status>> {
    let Some(object) = &node.node else { return Ok(NodePlan::default()) };
    let mut reasons: Vec<Cow<'static, str>> = Vec::new();
    reasons.extend(bound(listers, &claims.bound, object).err().map(Cow::Borrowed));
    let plan = match delayed(listers, claims, object) {
        Ok(plan) => plan,
        Err(Refusal::Reason(reason)) => {
            reasons.push(reason.into());
            NodePlan::default()
        }
        Err(Refusal::Error(why)) => {
            let reasons = vec![why.into()];
            let status = Status { code: Code::Error, plugin: names::VOLUME_BINDING, reasons };
            return Err(Arc::new(status));
        }
    };
    if reasons.is_empty() {
        return Ok(plan);
    }
    // In upstream's order: node, binding, space, volumes that do not exist.
    let order = [NODE_CONFLICT, BIND_CONFLICT, NO_SPACE, NO_VOLUME];
    reasons.sort_by_key(|r| order.iter().position(|o| o == r));
    let status = Status { code: Code::Unresolvable, plugin: names::VOLUME_BINDING, reasons };
    Err(Arc::new(status))
}

enum Refusal {
    Reason(&'static str),
    Error(String),
}

fn bound(
    listers: &Listers,
    claims: &[Arc<PersistentVolumeClaim>],
    node: &Node,
) -> Result<(), &'static str> {
    for claim in claims {
        let name = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or("");
        let volume = listers.volumes.get("", name).ok_or(NO_VOLUME)?;
        if !reachable(&volume, node) {
            return Err(NODE_CONFLICT);
        }
    }
    Ok(())
}

/// Whether the volume's node affinity lets it be used on the node.
pub(super) fn reachable(volume: &PersistentVolume, node: &Node) -> bool {
    let affinity = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref());
    affinity.and_then(|a| a.required.as_ref()).is_none_or(|r| selector_matches(r, node))
}

fn delayed(listers: &Listers, claims: &Claims, node: &Node) -> Result<NodePlan, Refusal> {
    let mut plan = NodePlan::default();
    let mut to_match: Vec<&Arc<PersistentVolumeClaim>> = Vec::new();
    let mut to_provision: Vec<Arc<PersistentVolumeClaim>> = Vec::new();
    for claim in &claims.delayed {
        let annotations = claim.metadata.annotations.as_ref();
        match annotations.and_then(|a| a.get(SELECTED_NODE)) {
            None => to_match.push(claim),
            Some(selected) if Some(selected) == node.metadata.name.as_ref() => {
                to_provision.push(claim.clone());
            }
            Some(_) => return Err(Refusal::Reason(BIND_CONFLICT)),
        }
    }
    // The smallest first, so that none takes a larger volume than it needs from another.
    to_match.sort_by_key(|claim| requested(claim).map_or(0, |q| q.value()));
    let mut chosen: HashSet<String> = HashSet::new();
    for claim in to_match {
        let volumes = claims.volumes.get(&class_of(claim)).map_or(&[][..], Vec::as_slice);
        match find(claim, volumes, node, &chosen) {
            Some(volume) => {
                chosen.extend(volume.metadata.name.clone());
                plan.matched.push((claim.clone(), volume));
            }
            None => to_provision.push(claim.clone()),
        }
    }
    for claim in to_provision {
        provisionable(listers, &claim, node)?;
        plan.provisioned.push(claim);
    }
    Ok(plan)
}

/// The volume that the claim is promised, or the smallest that will do.
fn find(
    claim: &PersistentVolumeClaim,
    volumes: &[Arc<PersistentVolume>],
    node: &Node,
    chosen: &HashSet<String>,
) -> Option<Arc<PersistentVolume>> {
    let selector = claim.spec.as_ref().and_then(|s| s.selector.as_ref());
    let selector = selector.map(|s| Selector::of(Some(s)));
    let mut smallest: Option<(Quantity, &Arc<PersistentVolume>)> = None;
    for volume in volumes {
        let free = !chosen.contains(volume.metadata.name.as_deref().unwrap_or(""));
        let promised = is_promised(volume, claim);
        let taken = volume.spec.as_ref().is_some_and(|s| s.claim_ref.is_some());
        if !free || taken && !promised || !fits(claim, volume) {
            continue;
        }
        if promised {
            return reachable(volume, node).then(|| volume.clone());
        }
        let available =
            volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Available");
        let selected = selector.as_ref().is_none_or(|s| s.matches(volume.metadata.labels.as_ref()));
        if !available || !selected || !offers_modes(claim, volume) || !reachable(volume, node) {
            continue;
        }
        let size = capacity(volume).unwrap_or(Quantity::ZERO);
        if smallest.as_ref().is_none_or(|(least, _)| size < *least) {
            smallest = Some((size, volume));
        }
    }
    smallest.map(|(_, volume)| volume.clone())
}

/// Size, mode, attributes class, and that it is not ending.
fn fits(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let (Some(asked), Some(has)) = (&claim.spec, &volume.spec) else { return false };
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".into());
    let class = |class: &Option<String>| class.clone().unwrap_or_default();
    let large = requested(claim).is_none_or(|want| capacity(volume).is_some_and(|c| c >= want));
    large
        && mode(&asked.volume_mode) == mode(&has.volume_mode)
        && class(&asked.volume_attributes_class_name) == class(&has.volume_attributes_class_name)
        && volume.metadata.deletion_timestamp.is_none()
}

fn offers_modes(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let offered = volume.spec.as_ref().and_then(|s| s.access_modes.as_deref()).unwrap_or_default();
    let asked = claim.spec.as_ref().and_then(|s| s.access_modes.as_deref()).unwrap_or_default();
    asked.iter().all(|mode| offered.contains(mode))
}

pub(super) fn is_promised(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let promised = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
    promised.is_some_and(|r| {
        r.name == claim.metadata.name
            && r.namespace == claim.metadata.namespace
            && r.uid
                .as_ref()
                .is_none_or(|uid| uid.is_empty() || Some(uid) == claim.metadata.uid.as_ref())
    })
}

fn provisionable(
    listers: &Listers,
    claim: &PersistentVolumeClaim,
    node: &Node,
) -> Result<(), Refusal> {
    let class_name = class_of(claim);
    let Some(class) = listers.classes.get("", &class_name) else {
        let why = format!("failed to find storage class \"{class_name}\"");
        return Err(Refusal::Error(why));
    };
    if class.provisioner.is_empty() || class.provisioner == NO_PROVISIONER {
        return Err(Refusal::Reason(BIND_CONFLICT));
    }
    let topologies = class.allowed_topologies.as_deref().unwrap_or_default();
    if !topologies.is_empty() && !topologies.iter().any(|t| topology_matches(t, node)) {
        return Err(Refusal::Reason(BIND_CONFLICT));
    }
    match has_capacity(listers, claim, &class, node) {
        true => Ok(()),
        false => Err(Refusal::Reason(NO_SPACE)),
    }
}

fn topology_matches(term: &TopologySelectorTerm, node: &Node) -> bool {
    let label = |key: &String| node.metadata.labels.as_ref().and_then(|l| l.get(key));
    let expressions = term.match_label_expressions.as_deref().unwrap_or_default();
    !expressions.is_empty()
        && expressions.iter().all(|e| label(&e.key).is_some_and(|v| e.values.contains(v)))
}

/// A driver that publishes its capacity must have enough of it for the node.
fn has_capacity(
    listers: &Listers,
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    node: &Node,
) -> bool {
    let Some(want) = requested(claim) else { return true };
    let driver = listers.csi_drivers.get("", &class.provisioner);
    if driver.is_none_or(|d| d.spec.storage_capacity != Some(true)) {
        return true;
    }
    let enough = |c: &Arc<CSIStorageCapacity>| {
        let topology = c.node_topology.as_ref().map(|t| Selector::of(Some(t)));
        Some(&c.storage_class_name) == class.metadata.name.as_ref()
            && capacity_limit(c).is_some_and(|limit| limit >= want.value())
            && topology.is_some_and(|t| t.matches(node.metadata.labels.as_ref()))
    };
    listers.capacities.list().iter().any(enough)
}

/// The largest volume that the capacity allows.
pub(super) fn capacity_limit(capacity: &CSIStorageCapacity) -> Option<i64> {
    let limit = capacity.maximum_volume_size.as_ref().or(capacity.capacity.as_ref())?;
    Quantity::parse(&limit.0).ok().map(|q| q.value())
}

fn requested(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    parse(requests.get("storage"))
}

fn capacity(volume: &PersistentVolume) -> Option<Quantity> {
    parse(volume.spec.as_ref()?.capacity.as_ref()?.get("storage"))
}

fn parse(quantity: Option<&resource::Quantity>) -> Option<Quantity> {
    Quantity::parse(&quantity?.0).ok()
}
