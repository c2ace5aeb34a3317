//! Labels and annotations that tie runtime objects to pods: with them a new agent adopts what an old
//! one started. Names are upstream's.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::resize::Amounts;
use super::{name_of, namespace_of, spec_of, uid_of};

pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";
pub(crate) const HASH: &str = "io.kubernetes.container.hash";
pub(crate) const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub(crate) const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub(crate) const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
const PRE_STOP: &str = "io.kubernetes.container.preStopHandler";
const PORTS: &str = "io.kubernetes.container.ports";
/// What of its resources can change, as it was when the container was made.
pub(crate) const AMOUNTS: &str = "io.trireme.container.resources";
pub(crate) const GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
const DELETION_GRACE: &str = "io.kubernetes.pod.deletionGracePeriod";

fn identity(pod: &Pod) -> [(String, String); 3] {
    [(POD_NAME, name_of(pod)), (POD_NAMESPACE, namespace_of(pod)), (POD_UID, uid_of(pod))]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
}

/// A sandbox's labels: the pod's own, and its identity.
pub(crate) fn sandbox_labels(pod: &Pod) -> BTreeMap<String, String> {
    let mut labels = pod.metadata.labels.clone().unwrap_or_default();
    labels.extend(identity(pod));
    labels
}

pub(crate) fn container_labels(pod: &Pod, container: &Container) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<_, _> = identity(pod).into();
    labels.insert(CONTAINER_NAME.into(), container.name.clone());
    labels
}

pub(crate) fn container_annotations(
    pod: &Pod,
    container: &Container,
    restart_count: u32,
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut put = |key: &str, value: String| all.insert(key.to_owned(), value);
    put(HASH, format!("{:x}", hash(container)));
    put(RESTART_COUNT, restart_count.to_string());
    put(MESSAGE_PATH, container.termination_message_path.clone().unwrap_or_default());
    put(MESSAGE_POLICY, container.termination_message_policy.clone().unwrap_or_default());
    if let Some(grace) = spec_of(pod).termination_grace_period_seconds {
        put(GRACE, grace.to_string());
    }
    if let Some(grace) = pod.metadata.deletion_grace_period_seconds {
        put(DELETION_GRACE, grace.to_string());
    }
    let pre_stop = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref());
    if let Some(json) = pre_stop.and_then(|handler| serde_json::to_string(handler).ok()) {
        put(PRE_STOP, json);
    }
    let amounts = Amounts::of(&spec_of(pod), container);
    if let Ok(json) = serde_json::to_string(&amounts) {
        put(AMOUNTS, json);
    }
    let ports = container.ports.as_ref().filter(|p| !p.is_empty());
    if let Some(json) = ports.and_then(|ports| serde_json::to_string(ports).ok()) {
        put(PORTS, json);
    }
    all
}

/// FNV-1a over what makes a running container another one when it changes: name and image, as in upstream
/// (other mutable fields are applied in place).
pub(crate) fn hash(container: &Container) -> u32 {
    const OFFSET: u32 = 0x811c_9dc5;
    const PRIME: u32 = 0x0100_0193;
    let image = container.image.as_deref().unwrap_or("");
    let bytes = container.name.bytes().chain([0]).chain(image.bytes());
    bytes.fold(OFFSET, |h, b| (h ^ u32::from(b)).wrapping_mul(PRIME))
}
