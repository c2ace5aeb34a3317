//! What pods and the node use: `/stats/summary` (JSON) and `/metrics/resource` (Prometheus text).
//!
//! Only what is measured is told: a rate needs two looks, so the first answer has none.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Volume};
use runtime::cri::{
    ContainerFilter, ContainerStats, CpuUsage, MemoryUsage, PodSandboxStats, PodSandboxStatsFilter,
    UInt64Value,
};
use serde_json::{Map, Value, json};

use super::{Response, answer, volume_stats};
use crate::beneath::Usage;
use crate::kubelet::Shared;
use crate::node::{self, Machine};
use crate::psi;
use crate::rates::Rates;
use crate::spec::{labels, name_of, namespace_of, spec_of, uid_of};
use crate::volumes::OnDisk;

const NANOS: f64 = 1e9;

fn number(value: Option<&UInt64Value>) -> Option<u64> {
    value.map(|v| v.value)
}

fn time(nanos: i64) -> Value {
    Timestamp::from_nanosecond(i128::from(nanos)).map_or(Value::Null, |t| json!(t.to_string()))
}

/// An object without what is not known.
fn known<const N: usize>(time: Value, fields: [(&str, Option<u64>); N]) -> Value {
    let mut map = Map::from_iter([("time".to_owned(), time)]);
    map.extend(fields.into_iter().filter_map(|(k, v)| Some((k.to_owned(), json!(v?)))));
    Value::Object(map)
}

fn cpu(rates: &Rates, what: &str, usage: Option<&CpuUsage>) -> Option<Value> {
    let usage = usage?;
    let total = number(usage.usage_core_nano_seconds.as_ref());
    let told = number(usage.usage_nano_cores.as_ref());
    let rate = told.or_else(|| rates.note(what, usage.timestamp, total?));
    Some(known(time(usage.timestamp), [("usageCoreNanoSeconds", total), ("usageNanoCores", rate)]))
}

fn memory(usage: Option<&MemoryUsage>) -> Option<Value> {
    let usage = usage?;
    let fields = [
        ("availableBytes", number(usage.available_bytes.as_ref())),
        ("usageBytes", number(usage.usage_bytes.as_ref())),
        ("workingSetBytes", number(usage.working_set_bytes.as_ref())),
        ("rssBytes", number(usage.rss_bytes.as_ref())),
        ("pageFaults", number(usage.page_faults.as_ref())),
        ("majorPageFaults", number(usage.major_page_faults.as_ref())),
    ];
    Some(known(time(usage.timestamp), fields))
}

fn container_name(stats: &ContainerStats) -> &str {
    let attributes = stats.attributes.as_ref();
    attributes.and_then(|a| a.labels.get(labels::CONTAINER_NAME)).map_or("", String::as_str)
}

/// When the container was started, as the pod's status says.
fn started(pod: &Pod, container: &str) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let mut all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let own = all.find(|s| s.name == container)?;
    own.state.as_ref()?.running.as_ref()?.started_at.as_ref().map(|t| t.0)
}

fn container(pod: &Pod, stats: &ContainerStats, machine: &Machine, rates: &Rates) -> Value {
    let name = container_name(stats);
    let id = stats.attributes.as_ref().map_or("", |a| a.id.as_str());
    let at = stats.writable_layer.as_ref().map(|layer| time(layer.timestamp));
    let files = at.map(|at| used(at, layer(stats), machine));
    let start = started(pod, name).map(|t| t.to_string());
    json!({
        "name": name, "startTime": start, "cpu": cpu(rates, id, stats.cpu.as_ref()),
        "memory": memory(stats.memory.as_ref()), "rootfs": files,
    })
}

fn interface(i: &runtime::Interface) -> Value {
    json!({
        "name": i.name, "rxBytes": i.rx_bytes, "rxErrors": i.rx_errors,
        "txBytes": i.tx_bytes, "txErrors": i.tx_errors,
    })
}

/// The first interface is the one that counts.
fn network(now: &Value, interfaces: &[runtime::Interface]) -> Option<Value> {
    let mut all = interface(interfaces.first()?);
    all["time"] = now.clone();
    all["interfaces"] = interfaces.iter().map(interface).collect();
    Some(all)
}

/// What a pod has on the disk.
#[derive(Default)]
struct PodDisk {
    /// Volumes that are the kubelet's own, by name.
    volumes: Vec<(String, Usage)>,
    all: OnDisk,
}

/// By the pods' uids.
async fn disks(shared: &Shared, pods: &[(Arc<Pod>, PodSandboxStats)]) -> HashMap<String, PodDisk> {
    let config = shared.config.clone();
    let pods: Vec<Arc<Pod>> = pods.iter().map(|(pod, _)| pod.clone()).collect();
    let work = move || {
        let of = |pod: &Pod| {
            let spec = spec_of(pod);
            let one = |volume: &Volume| {
                let dir = crate::volumes::directory(&config.root_dir, uid_of(pod), volume).ok()?;
                Some((volume.name.clone(), dir.usage().ok()?))
            };
            let volumes = spec.volumes.iter().flatten().filter_map(one).collect();
            PodDisk { volumes, all: OnDisk::measure(&config, pod) }
        };
        pods.iter().map(|pod| (uid_of(pod).to_owned(), of(pod))).collect()
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_default()
}

/// So much of the node's file system.
fn used(now: Value, usage: Usage, machine: &Machine) -> Value {
    let fields = [
        ("usedBytes", Some(usage.bytes)),
        ("inodesUsed", Some(usage.inodes)),
        ("availableBytes", Some(machine.disk_available_bytes)),
        ("capacityBytes", Some(machine.disk_bytes)),
        ("inodes", Some(machine.inodes)),
        ("inodesFree", Some(machine.inodes_free)),
    ];
    known(now, fields)
}

fn volumes(disk: &PodDisk, now: &Value, machine: &Machine) -> Vec<Value> {
    let one = |(name, usage): &(String, Usage)| {
        let mut shown = used(now.clone(), *usage, machine);
        shown["name"] = json!(name);
        shown
    };
    disk.volumes.iter().map(one).collect()
}

fn layer(stats: &ContainerStats) -> Usage {
    let value = |of: Option<&UInt64Value>| number(of).unwrap_or(0);
    let layer = stats.writable_layer.as_ref();
    Usage {
        bytes: value(layer.and_then(|l| l.used_bytes.as_ref())),
        inodes: value(layer.and_then(|l| l.inodes_used.as_ref())),
    }
}

/// What counts as the pod's ephemeral storage: its containers' own files, its volumes, logs,
/// `/etc/hosts` and termination messages.
fn ephemeral(stats: &PodSandboxStats, disk: &PodDisk) -> Usage {
    let linux = stats.linux.as_ref();
    let layers = linux.into_iter().flat_map(|l| &l.containers).map(layer);
    layers.fold(disk.all.total(), Usage::plus)
}

fn pod_summary(pod: &Pod, stats: &PodSandboxStats, machine: &Machine, rates: &Rates) -> Value {
    let linux = stats.linux.clone().unwrap_or_default();
    let containers: Vec<Value> =
        linux.containers.iter().map(|c| container(pod, c, machine, rates)).collect();
    let start = pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0.to_string());
    let processes = linux.process.as_ref().and_then(|p| number(p.process_count.as_ref()));
    json!({
        "podRef": {"name": name_of(pod), "namespace": namespace_of(pod), "uid": uid_of(pod)},
        "startTime": start,
        "containers": containers,
        "cpu": cpu(rates, uid_of(pod), linux.cpu.as_ref()),
        "memory": memory(linux.memory.as_ref()),
        "process_stats": {"process_count": processes},
    })
}

/// Every pod that has a ready sandbox, with what it uses.
async fn pods(shared: &Shared) -> runtime::Result<Vec<(Arc<Pod>, PodSandboxStats)>> {
    let stats = shared.runtime.list_pod_sandbox_stats(PodSandboxStatsFilter::default()).await?;
    let pods = shared.pods.list();
    let of = |stats: PodSandboxStats| {
        let uid = stats.attributes.as_ref()?.labels.get(labels::POD_UID)?.clone();
        let pod = pods.iter().find(|pod| uid_of(pod) == uid)?;
        Some((pod.clone(), stats))
    };
    Ok(stats.into_iter().filter_map(of).collect())
}

fn file_system(now: &Value, machine: &Machine) -> Value {
    let fields = [
        ("availableBytes", Some(machine.disk_available_bytes)),
        ("capacityBytes", Some(machine.disk_bytes)),
        ("usedBytes", Some(machine.disk_bytes.saturating_sub(machine.disk_available_bytes))),
        ("inodes", Some(machine.inodes)),
        ("inodesFree", Some(machine.inodes_free)),
    ];
    known(now.clone(), fields)
}

pub(super) async fn summary(shared: &Shared) -> Response {
    let pods = match pods(shared).await {
        Ok(pods) => pods,
        Err(error) => return answer(500, error.chain()),
    };
    let machine = node::machine(shared);
    let now = json!(Timestamp::now().to_string());
    let working_set = machine.memory_bytes.saturating_sub(machine.memory_available_bytes);
    let fs = file_system(&now, &machine);
    let figures = shared.runtime.pod_figures().await.unwrap_or_default();
    let uid = |f: &runtime::PodFigures| f.labels.get(labels::POD_UID).cloned().unwrap_or_default();
    let (rates, mut disks) = (&shared.rates, disks(shared, &pods).await);
    let of_drivers = volume_stats::of_pods(shared, pods.iter().map(|(pod, _)| pod)).await;
    let mut one = |(pod, stats): &(Arc<Pod>, PodSandboxStats)| {
        let disk = disks.remove(uid_of(pod)).unwrap_or_default();
        let mut shown = pod_summary(pod, stats, &machine, rates);
        let own = figures.iter().find(|f| uid(f) == uid_of(pod));
        shown["network"] = json!(own.and_then(|f| network(&now, &f.network)));
        let own = of_drivers.get(uid_of(pod)).into_iter().flatten();
        let own = own.map(|f| volume_stats::shown(f, namespace_of(pod), &now));
        let all: Vec<Value> = volumes(&disk, &now, &machine).into_iter().chain(own).collect();
        shown["volume"] = json!(all);
        shown["ephemeral-storage"] = used(now.clone(), ephemeral(stats, &disk), &machine);
        for container in shown["containers"].as_array_mut().into_iter().flatten() {
            let logs = disk.all.logs_of(container["name"].as_str().unwrap_or(""));
            container["logs"] = used(now.clone(), logs, &machine);
        }
        shown
    };
    let shown: Vec<Value> = pods.iter().map(&mut one).collect();
    let stamp = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
    let rate = rates.note("node", stamp, machine.cpu_nanos);
    let summary = json!({
        "node": {
            "nodeName": shared.config.node_name,
            "startTime": machine.booted.map(|t| t.to_string()),
            "cpu": known(now.clone(), [
                ("usageCoreNanoSeconds", Some(machine.cpu_nanos)),
                ("usageNanoCores", rate),
            ]),
            "memory": known(now.clone(), [
                ("availableBytes", Some(machine.memory_available_bytes)),
                ("usageBytes", Some(machine.memory_bytes.saturating_sub(machine.memory_free_bytes))),
                ("workingSetBytes", Some(working_set)),
            ]),
            "fs": fs,
            "runtime": {"imageFs": fs},
            "rlimit": known(now, [("maxpid", Some(machine.pids_max)), ("curproc", Some(machine.pids))]),
        },
        "pods": shown,
    });
    super::json(&with_pressure(summary))
}

/// Adds how long work waits for the node's resources, where the kernel counts it.
fn with_pressure(mut summary: Value) -> Value {
    let node = &mut summary["node"];
    for resource in ["cpu", "memory", "io"] {
        let Some(figures) = psi::figures(resource) else { continue };
        if node[resource].is_null() {
            node[resource] = json!({"time": node["cpu"]["time"]});
        }
        node[resource]["psi"] = figures;
    }
    summary
}

/// One line of Prometheus text, stamped in milliseconds.
fn line(out: &mut String, name: &str, labels: &[(&str, &str)], value: f64, at: i64) {
    use std::fmt::Write as _;
    let quoted = labels.iter().map(|(k, v)| format!("{k}={v:?}"));
    let labels = quoted.collect::<Vec<_>>().join(",");
    let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    writeln!(out, "{name}{braces} {value} {at}").expect("a string takes every write");
}

/// Where the usage of one thing goes: its metrics' prefix and labels.
struct Place<'a> {
    prefix: &'a str,
    labels: &'a [(&'a str, &'a str)],
}

fn usage(
    out: &mut [String; 2],
    place: &Place<'_>,
    cpu: Option<&CpuUsage>,
    memory: Option<&MemoryUsage>,
) {
    if let Some((total, at)) =
        cpu.and_then(|c| Some((number(c.usage_core_nano_seconds.as_ref())?, c.timestamp)))
    {
        let name = format!("{}_cpu_usage_seconds_total", place.prefix);
        line(&mut out[0], &name, place.labels, total as f64 / NANOS, at / 1_000_000);
    }
    if let Some((set, at)) =
        memory.and_then(|m| Some((number(m.working_set_bytes.as_ref())?, m.timestamp)))
    {
        let name = format!("{}_memory_working_set_bytes", place.prefix);
        line(&mut out[1], &name, place.labels, set as f64, at / 1_000_000);
    }
}

/// The metrics that metrics-server reads.
pub(super) async fn resource_metrics(shared: &Shared) -> Response {
    let (pods, failed) = match pods(shared).await {
        Ok(pods) => (pods, 0),
        Err(error) => {
            tracing::warn!(error = error.chain(), "no statistics");
            (Vec::new(), 1)
        }
    };
    // When containers were made, by id: what cannot be listed is not told.
    let made = shared.runtime.list_containers(ContainerFilter::default()).await.unwrap_or_default();
    let made: HashMap<&str, i64> = made.iter().map(|c| (c.id.as_str(), c.created_at)).collect();
    let (mut out, mut starts) = (<[[String; 2]; 2]>::default(), String::new());
    for (pod, stats) in &pods {
        let linux = stats.linux.clone().unwrap_or_default();
        let (namespace, name) = (namespace_of(pod), name_of(pod));
        for stats in &linux.containers {
            let labels =
                [("container", container_name(stats)), ("namespace", namespace), ("pod", name)];
            let place = Place { prefix: "container", labels: &labels };
            usage(&mut out[0], &place, stats.cpu.as_ref(), stats.memory.as_ref());
            let id = stats.attributes.as_ref().map_or("", |own| own.id.as_str());
            if let Some(at) = made.get(id) {
                let seconds = *at as f64 / NANOS;
                line(&mut starts, "container_start_time_seconds", &labels, seconds, at / 1_000_000);
            }
        }
        let labels = [("namespace", namespace), ("pod", name)];
        let place = Place { prefix: "pod", labels: &labels };
        usage(&mut out[1], &place, linux.cpu.as_ref(), linux.memory.as_ref());
    }
    answer(200, exposition(&out, &starts, &node::machine(shared), failed))
}

fn exposition(out: &[[String; 2]; 2], starts: &str, machine: &Machine, failed: u8) -> String {
    let now = Timestamp::now().as_millisecond();
    let used = machine.memory_bytes.saturating_sub(machine.memory_available_bytes);
    let mut node = <[String; 2]>::default();
    line(&mut node[0], "node_cpu_usage_seconds_total", &[], machine.cpu_nanos as f64 / NANOS, now);
    line(&mut node[1], "node_memory_working_set_bytes", &[], used as f64, now);
    let [[container_cpu, container_memory], [pod_cpu, pod_memory]] = out;
    let mut text = String::new();
    for (name, kind, help, lines) in [
        (
            "container_cpu_usage_seconds_total",
            "counter",
            "CPU time of a container in core-seconds",
            container_cpu.as_str(),
        ),
        (
            "container_memory_working_set_bytes",
            "gauge",
            "Working set of a container in bytes",
            container_memory,
        ),
        (
            "container_start_time_seconds",
            "gauge",
            "Start time of the container since unix epoch in seconds",
            starts,
        ),
        (
            "node_cpu_usage_seconds_total",
            "counter",
            "CPU time of the node in core-seconds",
            node[0].as_str(),
        ),
        ("node_memory_working_set_bytes", "gauge", "Working set of the node in bytes", &node[1]),
        ("pod_cpu_usage_seconds_total", "counter", "CPU time of a pod in core-seconds", pod_cpu),
        ("pod_memory_working_set_bytes", "gauge", "Working set of a pod in bytes", pod_memory),
    ] {
        text += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{lines}");
    }
    text + &format!(
        "# HELP resource_scrape_error 1 if the figures could not be read\n\
         # TYPE resource_scrape_error gauge\nresource_scrape_error {failed}\n"
    )
}
