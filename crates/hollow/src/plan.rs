//! What becomes of a pod, and what is written of nodes and pods.

use std::net::Ipv4Addr;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Node, Pod};
use serde_json::{Value, json};

use crate::{Config, SET_LABEL};

/// The phase that the pod ends with: `Succeeded` or `Failed`.
const END: &str = "hollow.trireme.io/end";
/// How many seconds it runs before; none when absent.
const AFTER: &str = "hollow.trireme.io/after-seconds";
/// With the value `true`, the node sends no heartbeats and touches no pods.
const SILENT: &str = "hollow.trireme.io/silent";

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Nothing,
    /// It starts.
    Run,
    /// It runs on for so long.
    Wait(Duration),
    /// It ends with this phase.
    End(&'static str),
    /// It was asked to end, and is gone at once.
    Remove,
}

pub(crate) fn is_silent(node: &Node) -> bool {
    let annotations = node.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(SILENT)).is_some_and(|value| value == "true")
}

pub(crate) fn step(pod: &Pod, now: Timestamp) -> Step {
    let status = pod.status.as_ref();
    let phase = status.and_then(|s| s.phase.as_deref()).unwrap_or("");
    if pod.metadata.deletion_timestamp.is_some() {
        return Step::Remove;
    }
    match phase {
        "Succeeded" | "Failed" => return Step::Nothing,
        "Running" => {}
        _ => return Step::Run,
    }
    let annotation = |key: &str| pod.metadata.annotations.as_ref().and_then(|all| all.get(key));
    let end = match annotation(END).map(String::as_str) {
        Some("Succeeded") => "Succeeded",
        Some("Failed") => "Failed",
        _ => return Step::Nothing,
    };
    let runs = annotation(AFTER).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let started = status.and_then(|s| s.start_time.as_ref()).map_or(now, |time| time.0);
    let ran = Duration::try_from(now.duration_since(started)).unwrap_or_default();
    match Duration::from_secs(runs).checked_sub(ran).filter(|left| !left.is_zero()) {
        Some(left) => Step::Wait(left),
        None => Step::End(end),
    }
}

/// A node of the set.
pub(crate) fn node(config: &Config, index: u32) -> Value {
    let name = config.name(index);
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64", (SET_LABEL): config.set}},
        "status": status(config, index),
    })
}

pub(crate) fn status(config: &Config, index: u32) -> Value {
    let amounts = json!({"cpu": config.cpu, "memory": config.memory,
        "pods": config.pods.to_string(), "ephemeral-storage": "100Gi"});
    let now = Timestamp::now().to_string();
    let condition = |kind: &str, status: &str, reason: &str| {
        json!({"type": kind, "status": status, "reason": reason, "lastHeartbeatTime": now,
            "message": "hollow node"})
    };
    json!({
        "capacity": amounts, "allocatable": amounts,
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID"),
            condition("Ready", "True", "KubeletReady"),
        ],
        "addresses": [{"type": "InternalIP", "address": node_address(index).to_string()},
            {"type": "Hostname", "address": config.name(index)}],
        "nodeInfo": {"architecture": "amd64", "operatingSystem": "linux", "bootID": "",
            "containerRuntimeVersion": "hollow://0", "kernelVersion": "", "kubeProxyVersion": "",
            "kubeletVersion": "v1.36.2", "machineID": "", "osImage": "hollow", "systemUUID": ""},
    })
}

/// An address that is the node's alone (10.0.0.0/9).
pub(crate) fn node_address(index: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits((10 << 24) | (index + 1) & 0x7f_ffff)
}

/// An address for the pod of this number (10.128.0.0/9): unique among some eight million.
pub(crate) fn pod_address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits((10 << 24) | (1 << 23) | number & 0x7f_ffff)
}

fn condition(kind: &str, status: &str, now: &str) -> Value {
    json!({"type": kind, "status": status, "lastTransitionTime": now})
}

fn container(container: &Container, state: &Value, runs: bool) -> Value {
    json!({"name": container.name, "image": container.image.clone().unwrap_or_default(),
        "imageID": "", "ready": runs, "started": runs, "restartCount": 0, "state": state})
}

/// The status of a pod that runs.
pub(crate) fn running(pod: &Pod, address: Ipv4Addr, host: Ipv4Addr, now: Timestamp) -> Value {
    let now = now.to_string();
    let spec = pod.spec.as_ref();
    let on_host = spec.and_then(|s| s.host_network) == Some(true);
    let ip = if on_host { host } else { address }.to_string();
    let inits = spec.and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
    let mains = spec.map(|s| s.containers.as_slice()).unwrap_or_default();
    let runs = json!({"running": {"startedAt": now}});
    let ended = json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now,
        "finishedAt": now}});
    let init = |c: &Container| match c.restart_policy.as_deref() {
        Some("Always") => container(c, &runs, true),
        _ => container(c, &ended, false),
    };
    let kinds = ["PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"];
    json!({
        "phase": "Running", "startTime": now, "podIP": ip, "podIPs": [{"ip": ip}],
        "hostIP": host.to_string(), "hostIPs": [{"ip": host.to_string()}],
        "conditions": kinds.map(|kind| condition(kind, "True", &now)),
        "initContainerStatuses": inits.iter().map(init).collect::<Vec<_>>(),
        "containerStatuses":
            mains.iter().map(|c| container(c, &runs, true)).collect::<Vec<_>>(),
    })
}

/// The status of a pod that has ended.
pub(crate) fn ended(pod: &Pod, phase: &str, now: Timestamp) -> Value {
    let now = now.to_string();
    let (code, reason) = if phase == "Succeeded" { (0, "Completed") } else { (1, "Error") };
    let state = json!({"terminated": {"exitCode": code, "reason": reason, "startedAt": now,
        "finishedAt": now}});
    let mains = pod.spec.as_ref().map(|s| s.containers.as_slice()).unwrap_or_default();
    let kinds = ["ContainersReady", "Ready"];
    json!({
        "phase": phase,
        "conditions": kinds.map(|kind| condition(kind, "False", &now)),
        "containerStatuses":
            mains.iter().map(|c| container(c, &state, false)).collect::<Vec<_>>(),
    })
}
