//! The node's status: capacity, conditions, addresses, versions, images.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures,
    NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeStatus, NodeSwapStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use runtime::cri::{ImageFilter, RuntimeHandler, StatusResponse};

use super::devices::Counts;
use super::facts::{self, Machine};
use crate::admission::Pressure;
use crate::config::KubeletConfig;
use crate::kubelet::Shared;
use crate::node::shutdown;
use crate::spec::resize::memory_text;
use crate::spec::resources::HUGE_PAGES;
use crate::status::seconds;
use crate::thresholds::Signal;
use crate::upkeep;

const KUBELET_VERSION: &str = "v1.36.2";
/// What nodes declare that can do it (`NodeDeclaredFeatures`), in the order of the names.
const DECLARED: [&str; 4] = [
    "ExtendWebSocketsToKubelet",
    "InPlacePodLevelResourcesVerticalScaling",
    "InPlacePodVerticalScalingInitContainers",
    "RestartAllContainersOnContainerExits",
];

/// Pods may use all but what is reserved and the eviction threshold.
pub(super) fn allocatable_storage(machine: &Machine, config: &KubeletConfig) -> u64 {
    let all = storage(machine, config);
    let kept = config.eviction.hard.get(Signal::NodefsAvailable);
    let threshold = kept.map_or(0, |kept| kept.of(all));
    all.saturating_sub(threshold.saturating_add(config.reserved_storage_bytes))
}

fn storage(machine: &Machine, config: &KubeletConfig) -> u64 {
    config.capacity.map_or(machine.disk_bytes, |part| part.storage_bytes.min(machine.disk_bytes))
}

fn cpus(millis: u64) -> String {
    match millis % 1000 {
        0 => (millis / 1000).to_string(),
        _ => format!("{millis}m"),
    }
}

/// What the node has, and what of it pods may use.
pub(super) fn resources(config: &KubeletConfig) -> NodeStatus {
    let machine = super::whole(config);
    let cpu = machine.cpu_millis.saturating_sub(config.reserved_cpu_millis);
    let kept = config.unallocatable_memory_bytes(machine.memory_bytes);
    let memory = machine.memory_bytes.saturating_sub(kept);
    let storage = format!("{}Ki", storage(&machine, config) / 1024);
    let capacity = (cpus(machine.cpu_millis), machine.memory_bytes, storage);
    let allocatable = (cpus(cpu), memory, allocatable_storage(&machine, config).to_string());
    NodeStatus {
        capacity: Some(list(capacity, config)),
        allocatable: Some(list(allocatable, config)),
        ..NodeStatus::default()
    }
}

pub(super) async fn build(shared: &Shared, old: &NodeStatus) -> NodeStatus {
    let config = &shared.config;
    let machine = super::machine(shared);
    let mut addresses: Vec<NodeAddress> = config
        .node_ips
        .iter()
        .map(|ip| NodeAddress { type_: "InternalIP".into(), address: ip.to_string() })
        .collect();
    addresses.push(NodeAddress { type_: "Hostname".into(), address: config.hostname.clone() });
    let runtime = shared.runtime.status(false).await;
    let known = runtime.as_ref().ok();
    let mut amounts = resources(config);
    add_extended(&mut amounts, &shared.places.devices.counts(), old);
    NodeStatus {
        addresses: Some(addresses),
        features: known.and_then(features),
        declared_features: Some(DECLARED.map(str::to_owned).into()),
        runtime_handlers: known.map(handlers).filter(|list| !list.is_empty()),
        conditions: Some(conditions(shared, &machine, old, runtime)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(config.port) }),
        }),
        node_info: Some(info(shared, machine.swap_bytes).await),
        images: Some(images(shared).await),
        volumes_in_use: Some(shared.volumes.in_use()),
        ..amounts
    }
}

/// Adds devices, and what somebody else says that the node has (`kubectl patch node --subresource status`).
fn add_extended(new: &mut NodeStatus, counts: &Counts, old: &NodeStatus) {
    let capacity = new.capacity.get_or_insert_default();
    let allocatable = new.allocatable.get_or_insert_default();
    let zero = || Quantity("0".to_owned());
    let before = old.capacity.iter().flatten();
    for (name, amount) in before.filter(|(name, _)| validation::is_extended_resource(name)) {
        let kept = if counts.is_new { zero() } else { amount.clone() };
        capacity.insert(name.clone(), kept.clone());
        allocatable.insert(name.clone(), kept);
    }
    // Not absent: those are the cluster's and not the node's.
    for name in &counts.removed {
        capacity.insert(name.clone(), zero());
        allocatable.insert(name.clone(), zero());
    }
    for (name, (healthy, all)) in &counts.present {
        capacity.insert(name.clone(), Quantity(all.to_string()));
        allocatable.insert(name.clone(), Quantity(healthy.to_string()));
    }
}

fn features(status: &StatusResponse) -> Option<NodeFeatures> {
    let features = status.features.as_ref()?;
    Some(NodeFeatures { supplemental_groups_policy: Some(features.supplemental_groups_policy) })
}

/// What each of the runtime's handlers can do, in the order of their names.
fn handlers(status: &StatusResponse) -> Vec<NodeRuntimeHandler> {
    let one = |handler: &RuntimeHandler| {
        let features = handler.features.as_ref().map(|f| NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(f.recursive_read_only_mounts),
            user_namespaces: Some(f.user_namespaces),
        });
        NodeRuntimeHandler { name: Some(handler.name.clone()), features }
    };
    let mut all: Vec<_> = status.runtime_handlers.iter().map(one).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// Huge pages as resources, with their bytes.
fn huge_pages(config: &KubeletConfig) -> impl Iterator<Item = (String, Quantity)> {
    config.huge_pages().into_iter().map(|(size, count)| {
        let name = format!("{HUGE_PAGES}{}", memory_text(size));
        (name, Quantity(memory_text(size.saturating_mul(count))))
    })
}

fn list(of: (String, u64, String), config: &KubeletConfig) -> BTreeMap<String, Quantity> {
    let (cpu, memory, storage) = of;
    let entries = [
        ("cpu", cpu),
        ("memory", format!("{}Ki", memory / 1024)),
        ("ephemeral-storage", storage),
        ("pods", config.max_pods.to_string()),
    ];
    let entries = entries.into_iter().map(|(k, v)| (k.to_owned(), Quantity(v)));
    entries.chain(huge_pages(config)).collect()
}

async fn info(shared: &Shared, swap: u64) -> NodeSystemInfo {
    let version = shared.runtime.version().await.ok();
    let runtime = version.map(|v| format!("{}://{}", v.runtime_name, v.runtime_version));
    let uuid = facts::read("/sys/class/dmi/id/product_uuid");
    let machine_id = facts::read("/etc/machine-id");
    NodeSystemInfo {
        architecture: facts::arch().into(),
        boot_id: facts::read("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: runtime.unwrap_or_default(),
        kernel_version: facts::read("/proc/sys/kernel/osrelease"),
        kube_proxy_version: String::new(),
        kubelet_version: KUBELET_VERSION.into(),
        operating_system: "linux".into(),
        os_image: facts::os_image(),
        system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
        machine_id,
        swap: (swap > 0).then(|| NodeSwapStatus { capacity: i64::try_from(swap).ok() }),
    }
}

async fn images(shared: &Shared) -> Vec<ContainerImage> {
    let mut all = shared.images.list_images(ImageFilter::default()).await.unwrap_or_default();
    all.sort_by_key(|i| std::cmp::Reverse(i.size));
    if let Some(most) = shared.config.status_images {
        all.truncate(most);
    }
    all.into_iter()
        .map(|i| ContainerImage {
            names: Some(i.repo_digests.into_iter().chain(i.repo_tags).take(5).collect()),
            size_bytes: i64::try_from(i.size).ok(),
        })
        .collect()
}

/// Whether the runtime and the network are ready and the machine stays up; else why not.
fn readiness(answer: runtime::Result<StatusResponse>, shutting_down: bool) -> Result<(), String> {
    let status = answer.map_err(|e| format!("container runtime is down: {}", e.chain()))?;
    let conditions = status.status.unwrap_or_default().conditions;
    let mut failed: Vec<String> = conditions
        .iter()
        .filter(|c| !c.status)
        .map(|c| {
            let what = match c.r#type.as_str() {
                "NetworkReady" => "container runtime network not ready",
                _ => "container runtime not ready",
            };
            format!("{what}: {}=false reason:{} message:{}", c.r#type, c.reason, c.message)
        })
        .collect();
    failed.extend(shutting_down.then(|| shutdown::NOT_READY.to_owned()));
    if failed.is_empty() { Ok(()) } else { Err(failed.join(", ")) }
}

fn conditions(
    shared: &Shared,
    machine: &Machine,
    old: &NodeStatus,
    runtime: runtime::Result<StatusResponse>,
) -> Vec<NodeCondition> {
    // What new pods are refused for, the scheduler must see: also for a while after it is over.
    let mut pressures = upkeep::pressures(machine, &shared.config.eviction);
    pressures.extend(shared.pressure());
    let [memory, disk, pids] =
        [Pressure::Memory, Pressure::Disk, Pressure::Pids].map(|p| pressures.contains(&p));
    let pressure = |on: bool, yes, no, has, fine| match on {
        true => (true, yes, has),
        false => (false, no, fine),
    };
    let ready = readiness(runtime, shared.shutting_down.load(Ordering::Relaxed));
    let (is_ready, reason, message) = match &ready {
        Ok(()) => (true, "KubeletReady", "kubelet is posting ready status"),
        Err(why) => (false, "KubeletNotReady", why.as_str()),
    };
    let all = [
        (
            "MemoryPressure",
            pressure(
                memory,
                "KubeletHasInsufficientMemory",
                "KubeletHasSufficientMemory",
                "kubelet has insufficient memory available",
                "kubelet has sufficient memory available",
            ),
        ),
        (
            "DiskPressure",
            pressure(
                disk,
                "KubeletHasDiskPressure",
                "KubeletHasNoDiskPressure",
                "kubelet has disk pressure",
                "kubelet has no disk pressure",
            ),
        ),
        (
            "PIDPressure",
            pressure(
                pids,
                "KubeletHasInsufficientPID",
                "KubeletHasSufficientPID",
                "kubelet has insufficient PID available",
                "kubelet has sufficient PID available",
            ),
        ),
        ("Ready", (is_ready, reason, message)),
    ];
    let now = Timestamp::now();
    let before = old.conditions.as_deref().unwrap_or_default();
    let one = |(name, (on, reason, message)): (&str, (bool, &str, &str))| {
        let status = if on { "True" } else { "False" };
        let last = before.iter().find(|c| c.type_ == name && c.status == status);
        let kept = last.and_then(|c| c.last_transition_time.clone());
        NodeCondition {
            type_: name.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_heartbeat_time: Some(seconds(now)),
            last_transition_time: kept.or_else(|| Some(seconds(now))),
        }
    };
    all.into_iter().map(one).collect()
}

/// Whether more than heartbeats differs.
pub(super) fn differs(old: &NodeStatus, new: &NodeStatus) -> bool {
    let still = |status: &NodeStatus| {
        let mut list = status.conditions.clone().unwrap_or_default();
        list.retain(|c| {
            matches!(c.type_.as_str(), "MemoryPressure" | "DiskPressure" | "PIDPressure" | "Ready")
        });
        list.sort_by(|a, b| a.type_.cmp(&b.type_));
        list.iter_mut().for_each(|c| c.last_heartbeat_time = None);
        list
    };
    still(old) != still(new)
        || old.addresses != new.addresses
        || old.capacity != new.capacity
        || old.allocatable != new.allocatable
        || old.node_info != new.node_info
        || old.features != new.features
        || old.declared_features != new.declared_features
        || old.runtime_handlers != new.runtime_handlers
        || old.volumes_in_use.clone().unwrap_or_default()
            != new.volumes_in_use.clone().unwrap_or_default()
        || old.images.clone().unwrap_or_default() != new.images.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amounts(list: &[(&str, &str)]) -> Option<BTreeMap<String, Quantity>> {
        let one = |(name, amount): &(&str, &str)| ((*name).to_owned(), Quantity((*amount).into()));
        Some(list.iter().map(one).collect())
    }

    #[test]
    fn devices_of_plugins_that_do_not_come_back_are_none_and_others_stay() {
        let old = NodeStatus {
            capacity: amounts(&[
                ("cpu", "9"),
                ("a.b/gpu", "4"),
                ("a.b/gone", "2"),
                ("a.b/other", "3"),
            ]),
            ..NodeStatus::default()
        };
        let mut counts = Counts {
            present: [("a.b/gpu".to_owned(), (1, 2))].into(),
            removed: ["a.b/gone".to_owned()].into(),
            is_new: false,
        };
        let build = |counts: &Counts| {
            let own = amounts(&[("cpu", "1")]);
            let mut new =
                NodeStatus { capacity: own.clone(), allocatable: own, ..NodeStatus::default() };
            add_extended(&mut new, counts, &old);
            (new.capacity, new.allocatable)
        };
        let all = |gpu, other| {
            amounts(&[("cpu", "1"), ("a.b/gpu", gpu), ("a.b/gone", "0"), ("a.b/other", other)])
        };
        assert_eq!(build(&counts), (all("2", "3"), all("1", "3")));
        // A machine that no kubelet had devices on has not what the API remembers of another one.
        counts.is_new = true;
        assert_eq!(build(&counts), (all("2", "0"), all("1", "0")));
    }
}
