//! Cluster events: what happened that may let an unschedulable pod fit.

use std::ops::BitOr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass};

use crate::resources::pod_requests;

/// What happened to an object; several at once as a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Action(u16);

impl Action {
    pub(crate) const ADD: Action = Action(1);
    pub(crate) const DELETE: Action = Action(1 << 1);
    /// A node can hold more or other amounts.
    pub(crate) const ALLOCATABLE: Action = Action(1 << 2);
    pub(crate) const NODE_LABEL: Action = Action(1 << 3);
    /// Taints changed, or a node was uncordoned.
    pub(crate) const NODE_TAINT: Action = Action(1 << 4);
    pub(crate) const POD_LABEL: Action = Action(1 << 5);
    /// A pod asks for less than before.
    pub(crate) const POD_SCALE_DOWN: Action = Action(1 << 6);
    pub(crate) const POD_GATES_GONE: Action = Action(1 << 7);
    pub(crate) const POD_TOLERATION: Action = Action(1 << 8);
    pub(crate) const POD_CLAIM: Action = Action(1 << 9);
    /// A node declares other features.
    pub(crate) const NODE_FEATURES: Action = Action(1 << 11);
    /// Any other change of the object.
    pub(crate) const UPDATE: Action = Action(1 << 10);

    pub(crate) fn includes(self, other: Action) -> bool {
        self.0 & other.0 != 0
    }
}

impl BitOr for Action {
    type Output = Action;

    fn bitor(self, other: Action) -> Action {
        Action(self.0 | other.0)
    }
}

/// States before and after; `None` where the object did not exist.
pub(crate) type Change<K> = (Option<Arc<K>>, Option<Arc<K>>);

/// The object of an event.
#[derive(Debug, Clone)]
pub(crate) enum Object {
    Pod(Change<Pod>),
    Node(Change<Node>),
    Namespace(Change<Namespace>),
    Volume(Change<PersistentVolume>),
    Claim(Change<PersistentVolumeClaim>),
    StorageClass(Change<StorageClass>),
    CsiNode(Change<CSINode>),
    CsiDriver(Change<CSIDriver>),
    Capacity(Change<CSIStorageCapacity>),
    Attachment,
    ResourceClaim(Change<ResourceClaim>),
    DeviceClass,
    ResourceSlice,
}

/// The kinds that plugins ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource {
    Pod,
    Node,
    Namespace,
    Volume,
    Claim,
    StorageClass,
    CsiNode,
    CsiDriver,
    Capacity,
    Attachment,
    DeviceClaim,
    DeviceClass,
    DeviceSlice,
}

#[derive(Debug, Clone)]
pub(crate) struct ClusterEvent {
    pub(crate) action: Action,
    pub(crate) object: Object,
}

/// Which events may help what a plugin rejected.
pub(crate) type Interest = (Resource, Action);

impl ClusterEvent {
    pub(crate) fn new(action: Action, object: Object) -> ClusterEvent {
        ClusterEvent { action, object }
    }

    pub(crate) fn matches(&self, (resource, action): Interest) -> bool {
        self.resource() == resource && action.includes(self.action)
    }

    fn resource(&self) -> Resource {
        match &self.object {
            Object::Pod(_) => Resource::Pod,
            Object::Node(_) => Resource::Node,
            Object::Namespace(_) => Resource::Namespace,
            Object::Volume(_) => Resource::Volume,
            Object::Claim(_) => Resource::Claim,
            Object::StorageClass(_) => Resource::StorageClass,
            Object::CsiNode(_) => Resource::CsiNode,
            Object::CsiDriver(_) => Resource::CsiDriver,
            Object::Capacity(_) => Resource::Capacity,
            Object::Attachment => Resource::Attachment,
            Object::ResourceClaim(_) => Resource::DeviceClaim,
            Object::DeviceClass => Resource::DeviceClass,
            Object::ResourceSlice => Resource::DeviceSlice,
        }
    }

    /// As upstream's figures name it; of several changes at once, the first.
    pub(crate) fn label(&self) -> String {
        const ACTIONS: [(Action, &str); 11] = [
            (Action::ADD, "Add"),
            (Action::DELETE, "Delete"),
            (Action::ALLOCATABLE, "UpdateNodeAllocatable"),
            (Action::NODE_LABEL, "UpdateNodeLabel"),
            (Action::NODE_TAINT, "UpdateNodeTaint"),
            (Action::NODE_FEATURES, "UpdateNodeDeclaredFeature"),
            (Action::POD_LABEL, "UpdatePodLabel"),
            (Action::POD_SCALE_DOWN, "UpdatePodScaleDown"),
            (Action::POD_TOLERATION, "UpdatePodToleration"),
            (Action::POD_GATES_GONE, "UpdatePodSchedulingGatesEliminated"),
            (Action::POD_CLAIM, "UpdatePodGeneratedResourceClaim"),
        ];
        let resource = match self.resource() {
            Resource::Pod => "AssignedPod",
            Resource::Node => "Node",
            Resource::Namespace => "Namespace",
            Resource::Volume => "PersistentVolume",
            Resource::Claim => "PersistentVolumeClaim",
            Resource::StorageClass => "storage.k8s.io/StorageClass",
            Resource::CsiNode => "storage.k8s.io/CSINode",
            Resource::CsiDriver => "storage.k8s.io/CSIDriver",
            Resource::Capacity => "storage.k8s.io/CSIStorageCapacity",
            Resource::Attachment => "storage.k8s.io/VolumeAttachment",
            Resource::DeviceClaim => "resource.k8s.io/ResourceClaim",
            Resource::DeviceClass => "resource.k8s.io/DeviceClass",
            Resource::DeviceSlice => "resource.k8s.io/ResourceSlice",
        };
        let action = ACTIONS.iter().find(|(action, _)| action.includes(self.action));
        [resource, action.map_or("Update", |(_, name)| name)].concat()
    }

    /// The pod of an event about a pod, before and after.
    pub(crate) fn pod(&self) -> Option<&Change<Pod>> {
        match &self.object {
            Object::Pod(change) => Some(change),
            _ => None,
        }
    }

    pub(crate) fn node(&self) -> Option<&Change<Node>> {
        match &self.object {
            Object::Node(change) => Some(change),
            _ => None,
        }
    }
}

/// How a node's change may help; heartbeats help nobody.
pub(crate) fn node_actions(old: &Node, new: &Node) -> Option<Action> {
    let allocatable = |n: &Node| n.status.as_ref().and_then(|s| s.allocatable.clone());
    let spec = |n: &Node| n.spec.as_ref().map(|s| s.taints.clone()).unwrap_or_default();
    let cordoned = |n: &Node| n.spec.as_ref().and_then(|s| s.unschedulable) == Some(true);
    let features = |n: &Node| n.status.as_ref().and_then(|s| s.declared_features.clone());
    let all = [
        (features(old) != features(new), Action::NODE_FEATURES),
        (allocatable(old) != allocatable(new), Action::ALLOCATABLE),
        (old.metadata.labels != new.metadata.labels, Action::NODE_LABEL),
        (spec(old) != spec(new) || cordoned(old) && !cordoned(new), Action::NODE_TAINT),
    ];
    union(all)
}

/// How a pod's change may help it or others.
pub(crate) fn pod_actions(old: &Pod, new: &Pod) -> Action {
    let gated = |p: &Pod| {
        p.spec.as_ref().is_some_and(|s| s.scheduling_gates.iter().flatten().next().is_some())
    };
    let tolerations =
        |p: &Pod| p.spec.as_ref().map_or(0, |s| s.tolerations.iter().flatten().count());
    let claims = |p: &Pod| p.status.as_ref().and_then(|s| s.resource_claim_statuses.clone());
    let all = [
        (old.metadata.labels != new.metadata.labels, Action::POD_LABEL),
        (scaled_down(old, new), Action::POD_SCALE_DOWN),
        (gated(old) && !gated(new), Action::POD_GATES_GONE),
        (tolerations(old) != tolerations(new), Action::POD_TOLERATION),
        (claims(old) != claims(new), Action::POD_CLAIM),
    ];
    union(all).unwrap_or(Action::UPDATE)
}

fn scaled_down(old: &Pod, new: &Pod) -> bool {
    let unchanged = old.spec.as_ref().map(|s| (&s.containers, &s.resources))
        == new.spec.as_ref().map(|s| (&s.containers, &s.resources))
        && old.status.as_ref().map(|s| &s.container_statuses)
            == new.status.as_ref().map(|s| &s.container_statuses);
    if unchanged {
        return false;
    }
    let (old, new) = (pod_requests(old), pod_requests(new));
    old.nonzero().any(|(name, amount)| amount > new.get(name))
}

fn union<const N: usize>(all: [(bool, Action); N]) -> Option<Action> {
    let actions = all.into_iter().filter(|(happened, _)| *happened).map(|(_, action)| action);
    actions.reduce(BitOr::bitor)
}
