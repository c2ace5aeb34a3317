//! Which Services a pod belongs to, and which pods a Service has: shared by the two controllers
//! that publish endpoints.

use std::sync::Arc;

use client::{Change, Informer, Queue};
use k8s_openapi::api::core::v1::{Pod, Service};

use crate::meta::{Key, Map, key, namespace};

/// The selector, of services that have one.
pub(crate) fn selector(service: &Service) -> Option<&Map> {
    let spec = service.spec.as_ref()?;
    let external = spec.type_.as_deref() == Some("ExternalName");
    spec.selector.as_ref().filter(|s| !external && !s.is_empty())
}

fn selects(selector: &Map, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    selector.iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v))
}

/// Pods behind the service.
pub(crate) fn pods_of(service: &Service, pods: &Informer<Pod>) -> Vec<Arc<Pod>> {
    let Some(selector) = selector(service) else { return Vec::new() };
    let mut all = pods.list_namespace(namespace(&service.metadata));
    all.retain(|pod| selects(selector, pod));
    all
}

/// Queues the services of pods that change in a way endpoints show.
pub(crate) fn watch_pods(services: &Informer<Service>, pods: &Informer<Pod>, queue: &Queue<Key>) {
    let (services, queue) = (services.clone(), queue.clone());
    pods.on_change(move |change| {
        if let Change::Updated { old, new } = change
            && shown(old) == shown(new)
        {
            return;
        }
        for service in services.list_namespace(namespace(&change.object().metadata)) {
            let Some(selector) = selector(&service) else { continue };
            let affected = [Some(change.object()), change.old()];
            if affected.into_iter().flatten().any(|pod| selects(selector, pod)) {
                queue.add(key(&*service));
            }
        }
    });
}

/// What endpoints show of a pod.
fn shown(pod: &Pod) -> impl PartialEq + use<'_> {
    (
        (crate::pods::ready(pod), crate::pods::finished(pod), crate::pods::node(pod)),
        pod.status.as_ref().map(|s| (&s.pod_ip, &s.pod_ips)),
        pod.metadata.labels.as_ref(),
        pod.metadata.deletion_timestamp.is_some(),
    )
}
