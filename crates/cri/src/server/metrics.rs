//! The CRI's metrics calls: cAdvisor's figures under cAdvisor's names, as containerd 2 tells them (whole seconds,
//! because the message has whole numbers only).

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ::runtime::cri::*;
use ::runtime::{ContainerFigures, Figures, Interface, PodFigures, RuntimeService};
use grpc::server::Methods;

use super::refused;
use super::runtime::ask;

const SECOND: u64 = 1_000_000_000;
const LABELS: [&str; 5] = ["pod", "namespace", "container", "id", "image"];
const INTERFACE: &str = "interface";

/// A figure: its name, its help, whether it only grows, and where it is.
struct Row<T: 'static>(&'static str, &'static str, MetricType, fn(&T) -> u64);

use MetricType::{Counter, Gauge};

/// A container's.
const OF_CONTAINER: &[Row<Figures>] = &[
    Row(
        "container_cpu_usage_seconds_total",
        "Cumulative CPU time consumed in seconds.",
        Counter,
        |f| f.cpu_ns / SECOND,
    ),
    Row(
        "container_cpu_user_seconds_total",
        "Cumulative user CPU time consumed in seconds.",
        Counter,
        |f| f.cpu_user_ns / SECOND,
    ),
    Row(
        "container_cpu_system_seconds_total",
        "Cumulative system CPU time consumed in seconds.",
        Counter,
        |f| f.cpu_system_ns / SECOND,
    ),
    Row(
        "container_cpu_cfs_periods_total",
        "Number of elapsed enforcement period intervals.",
        Counter,
        |f| f.periods,
    ),
    Row(
        "container_cpu_cfs_throttled_periods_total",
        "Number of CPU throttled period intervals.",
        Counter,
        |f| f.throttled_periods,
    ),
    Row(
        "container_cpu_cfs_throttled_seconds_total",
        "Total time duration the container has been throttled.",
        Counter,
        |f| f.throttled_ns / SECOND,
    ),
    Row("container_memory_cache", "Number of bytes of page cache memory.", Gauge, |f| f.cache),
    Row("container_memory_rss", "Size of RSS in bytes.", Gauge, |f| f.rss),
    Row("container_memory_mapped_file", "Size of memory mapped files in bytes.", Gauge, |f| {
        f.mapped
    }),
    Row("container_memory_swap", "Container swap usage in bytes.", Gauge, |f| f.swap),
    Row("container_memory_failcnt", "Number of memory usage hits limits.", Counter, |f| f.failures),
    Row("container_memory_usage_bytes", "Current memory usage in bytes.", Gauge, |f| f.memory),
    Row(
        "container_memory_max_usage_bytes",
        "Maximum memory usage recorded in bytes.",
        Gauge,
        |f| f.peak,
    ),
    Row(
        "container_memory_working_set_bytes",
        "Current working set of the container in bytes.",
        Gauge,
        |f| f.working_set,
    ),
    Row("container_fs_reads_bytes_total", "Cumulative count of bytes read.", Counter, |f| {
        f.read_bytes
    }),
    Row("container_fs_reads_total", "Cumulative count of reads completed.", Counter, |f| f.reads),
    Row("container_fs_writes_bytes_total", "Cumulative count of bytes written.", Counter, |f| {
        f.written_bytes
    }),
    Row("container_fs_writes_total", "Cumulative count of writes completed.", Counter, |f| {
        f.writes
    }),
    Row("container_processes", "Number of processes inside the container.", Gauge, |f| f.pids),
    Row("container_spec_cpu_period", "CPU period of the container.", Gauge, |f| f.cpu_period),
    Row("container_spec_cpu_shares", "CPU share of the container.", Gauge, |f| f.cpu_shares),
    Row("container_spec_memory_limit_bytes", "Memory limit for the container.", Gauge, |f| {
        f.memory_limit
    }),
];

/// Those of a container that are no cgroup's.
const STARTED: &str = "container_start_time_seconds";
const SEEN: &str = "container_last_seen";

/// A pod's, for each interface.
const OF_INTERFACE: &[Row<Interface>] = &[
    Row(
        "container_network_receive_bytes_total",
        "Cumulative count of bytes received.",
        Counter,
        |i| i.rx_bytes,
    ),
    Row(
        "container_network_receive_packets_total",
        "Cumulative count of packets received.",
        Counter,
        |i| i.rx_packets,
    ),
    Row(
        "container_network_receive_packets_dropped_total",
        "Cumulative count of packets dropped while receiving.",
        Counter,
        |i| i.rx_dropped,
    ),
    Row(
        "container_network_receive_errors_total",
        "Cumulative count of errors encountered while receiving.",
        Counter,
        |i| i.rx_errors,
    ),
    Row(
        "container_network_transmit_bytes_total",
        "Cumulative count of bytes transmitted.",
        Counter,
        |i| i.tx_bytes,
    ),
    Row(
        "container_network_transmit_packets_total",
        "Cumulative count of packets transmitted.",
        Counter,
        |i| i.tx_packets,
    ),
    Row(
        "container_network_transmit_packets_dropped_total",
        "Cumulative count of packets dropped while transmitting.",
        Counter,
        |i| i.tx_dropped,
    ),
    Row(
        "container_network_transmit_errors_total",
        "Cumulative count of errors encountered while transmitting.",
        Counter,
        |i| i.tx_errors,
    ),
];

pub(super) fn add(methods: Methods, runtime: &Arc<dyn RuntimeService>) -> Methods {
    let methods = methods.unary(
        "/runtime.v1.RuntimeService/ListMetricDescriptors",
        async |_: ListMetricDescriptorsRequest| {
            Ok(ListMetricDescriptorsResponse { descriptors: descriptors() })
        },
    );
    ask!(methods, runtime, "ListPodSandboxMetrics", |to, _asked: ListPodSandboxMetricsRequest| {
        let pods = to.pod_figures().await.map_err(refused)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
        let pod_metrics = pods.iter().map(|pod| of_pod(pod, now)).collect();
        Ok(ListPodSandboxMetricsResponse { pod_metrics })
    })
}

fn descriptors() -> Vec<MetricDescriptor> {
    let descriptor = |name: &str, help: &str, more: Option<&str>| MetricDescriptor {
        name: name.to_owned(),
        help: help.to_owned(),
        label_keys: LABELS.into_iter().chain(more).map(str::to_owned).collect(),
    };
    let own = OF_CONTAINER.iter().map(|row| descriptor(row.0, row.1, None));
    let interfaces = OF_INTERFACE.iter().map(|row| descriptor(row.0, row.1, Some(INTERFACE)));
    let started = "Start time of the container since unix epoch in seconds.";
    let times = [(STARTED, started), (SEEN, "Last time a container was seen by the exporter.")];
    let times = times.map(|(name, help)| descriptor(name, help, None));
    own.chain(interfaces).chain(times).collect()
}

fn metric(name: &str, kind: MetricType, value: u64, labels: &[String], now: i64) -> Metric {
    Metric {
        name: name.to_owned(),
        timestamp: now,
        metric_type: kind as i32,
        label_values: labels.to_vec(),
        value: Some(UInt64Value { value }),
    }
}

fn of_pod(pod: &PodFigures, now: i64) -> PodSandboxMetrics {
    let of = |key: &str| pod.labels.get(key).cloned().unwrap_or_default();
    let names = [of("io.kubernetes.pod.name"), of("io.kubernetes.pod.namespace")];
    let mut metrics = Vec::new();
    for interface in &pod.network {
        let none = String::new;
        let own = [none(), pod.id.clone(), none(), interface.name.clone()];
        let labels: Vec<String> = names.iter().cloned().chain(own).collect();
        metrics.extend(
            OF_INTERFACE.iter().map(|row| metric(row.0, row.2, row.3(interface), &labels, now)),
        );
    }
    let containers = pod.containers.iter().map(|c| of_container(c, &names, now));
    PodSandboxMetrics {
        pod_sandbox_id: pod.id.clone(),
        metrics,
        container_metrics: containers.collect(),
    }
}

fn of_container(container: &ContainerFigures, names: &[String; 2], now: i64) -> ContainerMetrics {
    let name = container.labels.get("io.kubernetes.container.name").cloned().unwrap_or_default();
    let own = [name, container.id.clone(), container.image.clone()];
    let labels: Vec<String> = names.iter().cloned().chain(own).collect();
    let mut metrics: Vec<Metric> = OF_CONTAINER
        .iter()
        .map(|row| metric(row.0, row.2, row.3(&container.used), &labels, now))
        .collect();
    let seconds = |ns: i64| u64::try_from(ns).unwrap_or(0) / SECOND;
    for (name, at) in [(STARTED, container.started_at), (SEEN, now)] {
        metrics.push(metric(name, Gauge, seconds(at), &labels, now));
    }
    ContainerMetrics { container_id: container.id.clone(), metrics }
}
