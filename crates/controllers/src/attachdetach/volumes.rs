//! Volumes of CSI drivers, and what nodes say of them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{AttachedVolume, Node, PersistentVolume, Pod};

use crate::meta::name;
use crate::pods;

/// Says that this controller, and not the kubelet, attaches the node's volumes.
const MANAGED: &str = "volumes.kubernetes.io/controller-managed-attach-detach";
/// Says that volumes of pods that ended stay attached.
const KEEP_TERMINATED: &str = "volumes.kubernetes.io/keep-terminated-pod-volumes";
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
pub(super) const PLUGIN: &str = "kubernetes.io/csi/";
const ATTACHMENT_PREFIX: &str = "csi-";

/// A volume that is to be attached to a node.
#[derive(Debug, Clone)]
pub(super) struct Volume {
    /// The PersistentVolume.
    pub(super) name: String,
    pub(super) driver: String,
    /// The name of its attachment to the node.
    pub(super) attachment: String,
    /// The name that nodes know it by.
    pub(super) unique: String,
    /// Whether several nodes may have it at once.
    pub(super) is_shared: bool,
    /// The pods on the node that need it.
    pub(super) pods: Vec<Arc<Pod>>,
}

impl Volume {
    /// None for a volume of no CSI driver.
    pub(super) fn of(volume: &PersistentVolume, node: &str) -> Option<Volume> {
        let spec = volume.spec.as_ref()?;
        let csi = spec.csi.as_ref()?;
        let modes = spec.access_modes.as_deref().unwrap_or_default();
        let shares = |mode: &String| mode == "ReadWriteMany" || mode == "ReadOnlyMany";
        Some(Volume {
            name: name(&volume.metadata).to_owned(),
            driver: csi.driver.clone(),
            attachment: attachment(&csi.volume_handle, &csi.driver, node),
            unique: format!("{PLUGIN}{}^{}", csi.driver, csi.volume_handle),
            is_shared: modes.is_empty() || modes.iter().any(shares),
            pods: Vec::new(),
        })
    }
}

/// The name that CSI's own parts know an attachment by.
fn attachment(handle: &str, driver: &str, node: &str) -> String {
    let digest = pki::sha256(format!("{handle}{driver}{node}").as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{ATTACHMENT_PREFIX}{hex}")
}

/// Whether an attachment has such a name; others belong to others.
pub(super) fn is_ours(attachment: &str) -> bool {
    let rest = attachment.strip_prefix(ATTACHMENT_PREFIX);
    rest.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The claims of the pod's volumes, those of generic ephemeral volumes included.
pub(super) fn claims(pod: &Pod) -> impl Iterator<Item = String> + '_ {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    volumes.filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", name(&pod.metadata), volume.name)),
        (None, None) => None,
    })
}

/// Whether no container of the pod runs or will.
pub(super) fn is_terminated(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let containers = status.and_then(|s| s.container_statuses.as_deref()).unwrap_or_default();
    let runs = |c: &k8s_openapi::api::core::v1::ContainerStatus| {
        let state = c.state.as_ref();
        !state.is_some_and(|s| s.terminated.is_some() || s.waiting.is_some())
    };
    let ends = pod.metadata.deletion_timestamp.is_some();
    pods::finished(pod) || ends && !containers.iter().any(runs)
}

fn says(node: &Node, annotation: &str) -> bool {
    let annotations = node.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(annotation)).is_some_and(|value| value == "true")
}

pub(super) fn is_managed(node: &Node) -> bool {
    says(node, MANAGED)
}

pub(super) fn keeps_terminated(node: &Node) -> bool {
    says(node, KEEP_TERMINATED)
}

pub(super) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_deref());
    conditions.unwrap_or_default().iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

pub(super) fn is_out_of_service(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    taints.iter().any(|taint| taint.key == OUT_OF_SERVICE)
}

/// The volumes that the node has mounted, or is about to.
pub(super) fn in_use(node: &Node) -> &[String] {
    node.status.as_ref().and_then(|s| s.volumes_in_use.as_deref()).unwrap_or_default()
}

/// The volumes that the node was told are attached.
pub(super) fn reported(node: &Node) -> &[AttachedVolume] {
    node.status.as_ref().and_then(|s| s.volumes_attached.as_deref()).unwrap_or_default()
}

type Facts<'a> = (&'a [String], &'a [AttachedVolume], [bool; 4]);

/// What of a node decides about its volumes: heartbeats do not.
pub(super) fn facts(node: &Node) -> Facts<'_> {
    let flags = [is_managed(node), keeps_terminated(node), is_ready(node), is_out_of_service(node)];
    (in_use(node), reported(node), flags)
}
