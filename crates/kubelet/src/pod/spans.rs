//! Spans of what is done for a pod, named as upstream's (`SyncPod`, `SyncTerminatingPod`, `SyncTerminatedPod`).

use k8s_openapi::api::core::v1::Pod;
use traces::{Kind, Span, Tracer};

use super::memory::{Busy, Slot};
use crate::spec::{name_of, namespace_of, uid_of};

/// The span of an operation that begins.
pub(super) fn begin(
    tracer: &std::sync::Arc<Tracer>,
    pod: &Pod,
    (slot, busy): (&Slot, &Busy),
) -> Span {
    let name = match (slot, busy) {
        (Slot::Delete | Slot::Cleanup, _) => "syncTerminatedPod",
        (_, Busy::Killing { .. }) => "syncTerminatingPod",
        _ => "syncPod",
    };
    let mut span = tracer.root(name, Kind::Internal);
    let (namespace, pod_name) = (namespace_of(pod), name_of(pod));
    span.set("k8s.pod.uid", uid_of(pod));
    span.set("k8s.pod", format!("{namespace}/{pod_name}"));
    span.set("k8s.pod.name", pod_name);
    span.set("k8s.namespace.name", namespace);
    span
}
