//! Pods that use more of the disk than they were allowed end: volumes with a size limit, containers
//! with a limit of ephemeral storage. Only pods with such limits are measured.

use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use runtime::cri::{ContainerStats, ContainerStatsFilter};

use super::EVICTED;
use crate::config::KubeletConfig;
use crate::kubelet::Shared;
use crate::pod::Event;
use crate::spec::{described, labels, quantity, resources, spec_of, uid_of};
use crate::volumes::OnDisk;
use crate::{admission, volumes};

const STORAGE: &str = "ephemeral-storage";

/// Looks at all pods again and again. A task of its own: a large tree takes seconds, and the node's
/// memory must not wait for that.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(shared.config.upkeep_interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        check(&shared).await;
    }
}

async fn check(shared: &Arc<Shared>) {
    for pod in shared.pods.list() {
        if let Some(message) = exceeded(shared, &pod).await {
            let event = Event::Evict {
                reason: EVICTED,
                message,
                grace: Some(0),
                disruption: None,
                announced: true,
                ended: None,
            };
            shared.tell(uid_of(&pod), event);
        }
    }
}

async fn exceeded(shared: &Arc<Shared>, pod: &Arc<Pod>) -> Option<String> {
    let limits: Vec<(String, String, u64)> = volume_limits(pod);
    if !limits.is_empty() {
        let (root, pod) = (shared.config.root_dir.clone(), pod.clone());
        let walked = tokio::task::spawn_blocking(move || volume_exceeded(&root, &pod, &limits));
        let found = walked.await.unwrap_or_default();
        if found.is_some() {
            return found;
        }
    }
    let total = u64::try_from(*admission::limits(pod).get(STORAGE)?).ok().filter(|n| *n > 0)?;
    let label_selector = [(labels::POD_UID.to_owned(), uid_of(pod).to_owned())].into();
    let filter = ContainerStatsFilter { label_selector, ..ContainerStatsFilter::default() };
    let stats = shared.runtime.list_container_stats(filter).await.ok()?;
    let (shared, pod) = (shared.clone(), pod.clone());
    let walk = move || storage_exceeded(&shared.config, &pod, total, &stats);
    tokio::task::spawn_blocking(walk).await.unwrap_or_default()
}

/// What the pod uses beside volumes in memory: its directory, its logs, its containers' own files.
fn storage_exceeded(
    config: &KubeletConfig,
    pod: &Pod,
    total: u64,
    stats: &[ContainerStats],
) -> Option<String> {
    let disk = OnDisk::measure(config, pod);
    let layers = stats.iter().map(layer).sum::<u64>();
    if layers.saturating_add(disk.total().bytes) > total {
        let text = "Pod ephemeral local storage usage exceeds the total limit of containers";
        return Some(format!("{text} {}. ", quantity::shown(total)));
    }
    let limits = container_limits(pod);
    stats.iter().find_map(|stats| container_exceeded(stats, &limits, &disk))
}

fn layer(stats: &ContainerStats) -> u64 {
    let used = stats.writable_layer.as_ref().and_then(|layer| layer.used_bytes.as_ref());
    used.map_or(0, |bytes| bytes.value)
}

/// Name, limit as written, and in bytes; those in memory are limited by the kernel.
fn volume_limits(pod: &Pod) -> Vec<(String, String, u64)> {
    let spec = spec_of(pod);
    let all = spec.volumes.iter().flatten().filter_map(|volume| {
        let empty = volume.empty_dir.as_ref()?;
        let limit =
            empty.size_limit.as_ref().filter(|_| empty.medium.as_deref() != Some("Memory"))?;
        let bytes = u64::try_from(quantity::units(limit)?).ok().filter(|n| *n > 0)?;
        Some((volume.name.clone(), limit.0.clone(), bytes))
    });
    all.collect()
}

fn volume_exceeded(root: &Path, pod: &Pod, limits: &[(String, String, u64)]) -> Option<String> {
    let spec = spec_of(pod);
    limits.iter().find_map(|(name, text, bytes)| {
        let volume = spec.volumes.iter().flatten().find(|v| v.name == *name)?;
        let dir = volumes::directory(root, uid_of(pod), volume).ok()?;
        let over = match dir.usage() {
            Ok(usage) => usage.bytes > *bytes,
            // A tree that nobody can measure is no way around a limit.
            Err(error) => {
                tracing::warn!(%error, pod = described(pod), volume = name, "volume not measured");
                true
            }
        };
        over.then(|| format!("Usage of EmptyDir volume {name:?} exceeds the limit {text:?}. "))
    })
}

fn container_limits(pod: &Pod) -> Vec<(String, String, u64)> {
    let spec = spec_of(pod);
    let all = spec.containers.iter().filter_map(|container| {
        let limit = resources::limits(container)?.get(STORAGE)?;
        let bytes = u64::try_from(quantity::units(limit)?).ok().filter(|n| *n > 0)?;
        Some((container.name.clone(), limit.0.clone(), bytes))
    });
    all.collect()
}

fn container_exceeded(
    stats: &ContainerStats,
    limits: &[(String, String, u64)],
    disk: &OnDisk,
) -> Option<String> {
    let name = stats.attributes.as_ref()?.labels.get(labels::CONTAINER_NAME)?;
    let (_, text, most) = limits.iter().find(|(of, _, _)| of == name)?;
    (layer(stats).saturating_add(disk.logs_of(name).bytes) > *most)
        .then(|| format!("Container {name} exceeded its local ephemeral storage limit {text:?}. "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_that_a_pod_leaves_on_the_disk_counts() {
        let root = tempfile::tempdir().unwrap();
        let mut config = KubeletConfig::new("n");
        config.root_dir = root.path().join("kubelet");
        config.log_dir = root.path().join("logs");
        let limit = json!({"limits": {"ephemeral-storage": "64Ki"}});
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"containers": [{"name": "a", "resources": limit}, {"name": "b", "resources": limit}]},
        }))
        .unwrap();
        let attributes = runtime::cri::ContainerAttributes {
            labels: [(labels::CONTAINER_NAME.to_owned(), "a".to_owned())].into(),
            ..Default::default()
        };
        let stats = [ContainerStats { attributes: Some(attributes), ..Default::default() }];
        let total = u64::try_from(admission::limits(&pod)[STORAGE]).unwrap();
        let said = || storage_exceeded(&config, &pod, total, &stats);
        assert_eq!((total, said()), (128 << 10, None));
        let file = volumes::message::make(&config.root_dir, "u", "a", 0).unwrap();
        std::fs::write(&file, vec![1; 200 << 10]).unwrap();
        let total_said =
            "Pod ephemeral local storage usage exceeds the total limit of containers 128Ki. ";
        assert_eq!(said().as_deref(), Some(total_said));
        std::fs::write(&file, "").unwrap();
        let logs = config.log_dir.join("ns_p_u/a");
        std::fs::create_dir_all(&logs).unwrap();
        std::fs::write(logs.join("0.log"), vec![1; 80 << 10]).unwrap();
        let own = "Container a exceeded its local ephemeral storage limit \"64Ki\". ";
        assert_eq!(said().as_deref(), Some(own));
    }

    #[test]
    fn a_volume_that_outgrows_its_limit_is_named() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "uid": "u"},
            "spec": {"containers": [], "volumes": [
                {"name": "free", "emptyDir": {}},
                {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Ki"}},
                {"name": "small", "emptyDir": {"sizeLimit": "16Ki"}},
            ]},
        }))
        .unwrap();
        let limits = volume_limits(&pod);
        assert_eq!(limits, [("small".to_owned(), "16Ki".to_owned(), 16 << 10)]);
        let root = tempfile::tempdir().unwrap();
        let volume = &spec_of(&pod).volumes.clone().unwrap_or_default()[2];
        let dir = volumes::path(root.path(), "u", volume).unwrap();
        std::fs::create_dir_all(dir.join("below")).unwrap();
        std::fs::write(dir.join("below/a"), vec![1; 4 << 10]).unwrap();
        assert_eq!(volume_exceeded(root.path(), &pod, &limits), None);
        std::fs::write(dir.join("below/b"), vec![1; 32 << 10]).unwrap();
        let said = volume_exceeded(root.path(), &pod, &limits).unwrap();
        assert_eq!(said, "Usage of EmptyDir volume \"small\" exceeds the limit \"16Ki\". ");
    }
}
