//! The node as the API knows it: registration, status, lease.

pub(crate) mod cgroups;
pub(crate) mod devices;
pub(crate) mod dra;
mod events;
mod facts;
mod lease;
pub(crate) mod placing;
pub(crate) mod pod_resources;
pub(crate) mod shutdown;
mod status;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use client::{EventType, Patch};
use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use runtime::cri::{NetworkConfig, RuntimeConfig};
use serde_json::json;
use tokio::time::Instant;

use crate::config::KubeletConfig;
use crate::kubelet::Shared;
use crate::spec::resources::NodeResources;

pub use facts::Capacity;
pub(crate) use facts::Machine;
pub(crate) use lease::run as run_lease;

/// Wait before a request that the API did not answer well is sent again.
const RETRY: Duration = Duration::from_millis(500);

/// The machine, or the node's part of it, before any of its pods.
pub(crate) fn whole(config: &KubeletConfig) -> Machine {
    facts::machine(&config.root_dir).part(config.capacity, 0)
}

/// The memory that the node has.
pub(crate) fn memory_bytes(config: &KubeletConfig) -> u64 {
    whole(config).memory_bytes
}

/// The machine, or the node's part of it, as it is now.
pub(crate) fn machine(shared: &Shared) -> Machine {
    let used = shared.pods_memory.load(Ordering::Relaxed);
    facts::machine(&shared.config.root_dir).part(shared.config.capacity, used)
}

/// What containers' resource values depend on.
pub(crate) fn resources(config: &KubeletConfig) -> NodeResources {
    let machine = whole(config);
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    NodeResources {
        memory_bytes: signed(machine.memory_bytes),
        allocatable_memory_bytes: signed(
            machine
                .memory_bytes
                .saturating_sub(config.unallocatable_memory_bytes(machine.memory_bytes)),
        ),
        allocatable_cpu_millis: signed(
            machine.cpu_millis.saturating_sub(config.reserved_cpu_millis),
        ),
        swap_bytes: match config.limited_swap {
            true => signed(machine.swap_bytes),
            false => 0,
        },
        page_sizes: config.huge_pages().into_iter().map(|(size, _)| size).collect(),
        allocatable_storage_bytes: signed(status::allocatable_storage(&machine, config)),
        unified: Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
    }
}

/// Registers the node, then reports its status: when it changes, and rarely when it does not.
pub(crate) async fn run_status(shared: Arc<Shared>) {
    let name = shared.config.node_name.clone();
    if shared.config.register_node {
        while let Err(error) = register(&shared).await {
            tracing::warn!(node = name, %error, "node not registered, will retry");
            tokio::time::sleep(RETRY).await;
        }
    }
    let (sender, mut changes) = tokio::sync::watch::channel(None);
    shared.node.on_change(move |change| {
        sender.send_replace(Some(change.object().clone()));
    });
    shared.recorder.event(&about(&shared), EventType::Normal, "Starting", "Starting kubelet.");
    report(&shared, &mut changes).await;
}

type Changes = tokio::sync::watch::Receiver<Option<Arc<Node>>>;

async fn report(shared: &Arc<Shared>, changes: &mut Changes) {
    let mut ticks = tokio::time::interval(shared.config.status_update_interval);
    let mut reported: Option<Instant> = None;
    let mut cidr: Option<String> = None;
    let mut is_unschedulable = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shared.status_due.notified() => {}
            changed = changes.changed() => if changed.is_err() { return },
        }
        let Some(node) = changes.borrow_and_update().clone() else { continue };
        let given = node.spec.as_ref().and_then(|s| s.pod_cidr.clone());
        if given != cidr {
            tell_runtime(shared, given.as_deref()).await;
            cidr = given;
        }
        let cordoned = node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false);
        if cordoned != is_unschedulable {
            events::of_schedulability(shared, cordoned);
            is_unschedulable = cordoned;
        }
        let old = node.status.clone().unwrap_or_default();
        let new = status::build(shared, &old).await;
        let due = reported.is_none_or(|at| at.elapsed() >= shared.config.status_report_interval);
        if !due && !status::differs(&old, &new) {
            continue;
        }
        if write(shared, &new).await {
            reported = Some(Instant::now());
            events::of_status(shared, &old, &new);
        }
    }
}

async fn tell_runtime(shared: &Shared, cidr: Option<&str>) {
    let network = NetworkConfig { pod_cidr: cidr.unwrap_or_default().to_owned() };
    let config = RuntimeConfig { network_config: Some(network) };
    if let Err(error) = shared.runtime.update_runtime_config(config).await {
        tracing::warn!(error = error.chain(), "the runtime did not take the pod CIDR");
    }
}

async fn write(shared: &Shared, new: &NodeStatus) -> bool {
    // The list of addresses is one value, though strategic merge would join it by type.
    let mut status = json!(new);
    if let Some(list) = status["addresses"].as_array_mut() {
        list.push(json!({"$patch": "replace"}));
    }
    let patch = Patch::Strategic(json!({"status": status}));
    let name = &shared.config.node_name;
    match shared.client.patch_status::<Node>("", name, &patch).await {
        Ok(_) => {
            shared.places.devices.status_written();
            true
        }
        Err(error) => {
            tracing::warn!(node = name, %error, "node status not written");
            false
        }
    }
}

pub(crate) fn about(shared: &Shared) -> ObjectReference {
    let name = shared.config.node_name.clone();
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Node".into()),
        // Upstream's events name the node's uid so.
        uid: Some(name.clone()),
        name: Some(name),
        ..ObjectReference::default()
    }
}

fn labels(config: &KubeletConfig) -> BTreeMap<String, String> {
    let arch = facts::arch();
    let mut labels = config.labels.clone();
    for (key, value) in [
        ("kubernetes.io/hostname", config.hostname.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch),
    ] {
        labels.insert(key.into(), value.into());
    }
    labels
}

/// The node as it will register, as far as taking pods depends on it.
pub(crate) fn expected(config: &KubeletConfig) -> Node {
    Node {
        metadata: ObjectMeta {
            name: Some(config.node_name.clone()),
            labels: Some(labels(config)),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            provider_id: config.provider_id.clone(),
            taints: Some(config.taints.clone()).filter(|t| !t.is_empty()),
            ..NodeSpec::default()
        }),
        status: Some(status::resources(config)),
    }
}

async fn register(shared: &Shared) -> Result<(), client::Error> {
    let config = &shared.config;
    let labels = labels(config);
    let mut node = expected(config);
    let status = status::build(shared, &NodeStatus::default()).await;
    node.status = Some(status.clone());
    match shared.client.create("", &node).await {
        Ok(_) => {
            events::of_status(shared, &NodeStatus::default(), &status);
            Ok(())
        }
        Err(e) if e.is_already_exists() => {
            let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
            shared.client.patch::<Node>("", &config.node_name, &patch).await.map(drop)
        }
        Err(error) => Err(error),
    }
}
