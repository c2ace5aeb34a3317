//! `/metrics/cadvisor`: the series of containers and pods that dashboards are made of, under cAdvisor's
//! names and with its labels. Read when asked for; nothing walks a file system, so the sizes of writable
//! layers are in `/stats/summary` only.

use jiff::Timestamp;
use runtime::{ContainerFigures, Figures, PodFigures};

use super::text::Family;
use super::{Response, answer};
use crate::kubelet::Shared;
use crate::node;
use crate::spec::labels;

const NANOS: f64 = 1e9;
const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";

/// Name, type, help, value; `None` leaves the series out.
type Series = (&'static str, &'static str, &'static str, fn(&Figures) -> Option<f64>);

fn some(n: u64) -> Option<f64> {
    Some(n as f64)
}

fn seconds(ns: u64) -> Option<f64> {
    Some(ns as f64 / NANOS)
}

fn set(n: u64) -> Option<f64> {
    (n > 0).then_some(n as f64)
}

/// What containers and pods have one value of.
const SERIES: &[Series] = &[
    (
        "container_cpu_user_seconds_total",
        COUNTER,
        "Cumulative user cpu time consumed in seconds.",
        |f| seconds(f.cpu_user_ns),
    ),
    (
        "container_cpu_system_seconds_total",
        COUNTER,
        "Cumulative system cpu time consumed in seconds.",
        |f| seconds(f.cpu_system_ns),
    ),
    (
        "container_cpu_cfs_periods_total",
        COUNTER,
        "Number of elapsed enforcement period intervals.",
        |f| set(f.cpu_quota).and(some(f.periods)),
    ),
    (
        "container_cpu_cfs_throttled_periods_total",
        COUNTER,
        "Number of throttled period intervals.",
        |f| set(f.cpu_quota).and(some(f.throttled_periods)),
    ),
    (
        "container_cpu_cfs_throttled_seconds_total",
        COUNTER,
        "Total time duration the container has been throttled.",
        |f| set(f.cpu_quota).and(seconds(f.throttled_ns)),
    ),
    (
        "container_memory_usage_bytes",
        GAUGE,
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        |f| some(f.memory),
    ),
    ("container_memory_working_set_bytes", GAUGE, "Current working set in bytes.", |f| {
        some(f.working_set)
    }),
    ("container_memory_rss", GAUGE, "Size of RSS in bytes.", |f| some(f.rss)),
    ("container_memory_cache", GAUGE, "Number of bytes of page cache memory.", |f| some(f.cache)),
    ("container_memory_mapped_file", GAUGE, "Size of memory mapped files in bytes.", |f| {
        some(f.mapped)
    }),
    ("container_memory_swap", GAUGE, "Container swap usage in bytes.", |f| some(f.swap)),
    ("container_memory_max_usage_bytes", GAUGE, "Maximum memory usage recorded in bytes", |f| {
        set(f.peak)
    }),
    ("container_memory_failcnt", COUNTER, "Number of memory usage hits limits", |f| {
        some(f.failures)
    }),
    ("container_processes", GAUGE, "Number of processes running inside the container.", |f| {
        some(f.pids)
    }),
    ("container_fs_reads_total", COUNTER, "Cumulative count of reads completed", |f| some(f.reads)),
    ("container_fs_reads_bytes_total", COUNTER, "Cumulative count of bytes read", |f| {
        some(f.read_bytes)
    }),
    ("container_fs_writes_total", COUNTER, "Cumulative count of writes completed", |f| {
        some(f.writes)
    }),
    ("container_fs_writes_bytes_total", COUNTER, "Cumulative count of bytes written", |f| {
        some(f.written_bytes)
    }),
    ("container_spec_cpu_period", GAUGE, "CPU period of the container.", |f| set(f.cpu_period)),
    ("container_spec_cpu_quota", GAUGE, "CPU quota of the container.", |f| set(f.cpu_quota)),
    ("container_spec_cpu_shares", GAUGE, "CPU share of the container.", |f| set(f.cpu_shares)),
    ("container_spec_memory_limit_bytes", GAUGE, "Memory limit for the container.", |f| {
        some(f.memory_limit)
    }),
];

/// What is measured: a container, or a pod as a whole.
struct Subject<'a> {
    labels: [(&'static str, &'a str); 6],
    used: &'a Figures,
    started_at: i64,
}

fn label<'a>(of: &'a std::collections::BTreeMap<String, String>, name: &str) -> &'a str {
    of.get(name).map_or("", String::as_str)
}

/// In the order that cAdvisor has them.
fn labelled<'a>(
    pod: &'a PodFigures,
    container: &'a str,
    id: &'a str,
    image: &'a str,
    name: &'a str,
) -> [(&'static str, &'a str); 6] {
    [
        ("container", container),
        ("id", id),
        ("image", image),
        ("name", name),
        ("namespace", label(&pod.labels, labels::POD_NAMESPACE)),
        ("pod", label(&pod.labels, labels::POD_NAME)),
    ]
}

fn subjects(pods: &[PodFigures]) -> Vec<Subject<'_>> {
    let mut all = Vec::new();
    for pod in pods {
        all.push(Subject {
            labels: labelled(pod, "", &pod.cgroup, "", ""),
            used: &pod.used,
            started_at: pod.created_at,
        });
        for c in &pod.containers {
            let ContainerFigures { id, image, cgroup, .. } = c;
            let name = label(&c.labels, labels::CONTAINER_NAME);
            all.push(Subject {
                labels: labelled(pod, name, cgroup, image, id),
                used: &c.used,
                started_at: c.started_at,
            });
        }
    }
    all
}

/// The text for these pods at a time in milliseconds.
fn exposition(pods: &[PodFigures], now: i64) -> String {
    let subjects = subjects(pods);
    let at = Some(now);
    let mut cpu = Family::new(
        "container_cpu_usage_seconds_total",
        COUNTER,
        "Cumulative cpu time consumed in seconds.",
    );
    let mut failures = Family::new(
        "container_memory_failures_total",
        COUNTER,
        "Cumulative count of memory allocation failures.",
    );
    let mut start = Family::new(
        "container_start_time_seconds",
        GAUGE,
        "Start time of the container since unix epoch in seconds.",
    );
    let mut seen =
        Family::new("container_last_seen", GAUGE, "Last time a container was seen by the exporter");
    for s in &subjects {
        let [container, rest @ ..] = s.labels;
        let with = |extra: &[(&'static str, &'static str)]| {
            let mut all = vec![container];
            all.extend_from_slice(extra);
            all.extend(rest);
            all.sort_unstable_by_key(|(name, _)| *name);
            all
        };
        cpu.put(&with(&[("cpu", "total")]), s.used.cpu_ns as f64 / NANOS, at);
        for (kind, value) in
            [("pgfault", s.used.page_faults), ("pgmajfault", s.used.major_page_faults)]
        {
            for scope in ["container", "hierarchy"] {
                failures.put(&with(&[("failure_type", kind), ("scope", scope)]), value as f64, at);
            }
        }
        start.put(&s.labels, (s.started_at / 1_000_000_000) as f64, at);
        seen.put(&s.labels, (now / 1000) as f64, at);
    }
    let mut text = cpu.text() + &failures.text() + &start.text() + &seen.text();
    for (name, kind, help, value) in SERIES {
        let mut family = Family::new(name, kind, help);
        for s in &subjects {
            if let Some(value) = value(s.used) {
                family.put(&s.labels, value, at);
            }
        }
        text += &family.text();
    }
    text + &network(pods, at)
}

type Counter = (&'static str, &'static str, fn(&runtime::Interface) -> u64);

const NETWORK: &[Counter] = &[
    ("container_network_receive_bytes_total", "Cumulative count of bytes received", |i| i.rx_bytes),
    ("container_network_receive_packets_total", "Cumulative count of packets received", |i| {
        i.rx_packets
    }),
    (
        "container_network_receive_packets_dropped_total",
        "Cumulative count of packets dropped while receiving",
        |i| i.rx_dropped,
    ),
    (
        "container_network_receive_errors_total",
        "Cumulative count of errors encountered while receiving",
        |i| i.rx_errors,
    ),
    ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |i| {
        i.tx_bytes
    }),
    ("container_network_transmit_packets_total", "Cumulative count of packets transmitted", |i| {
        i.tx_packets
    }),
    (
        "container_network_transmit_packets_dropped_total",
        "Cumulative count of packets dropped while transmitting",
        |i| i.tx_dropped,
    ),
    (
        "container_network_transmit_errors_total",
        "Cumulative count of errors encountered while transmitting",
        |i| i.tx_errors,
    ),
];

/// Networks are the pods'. Their series have a container's place empty, as those of a pod have.
fn network(pods: &[PodFigures], at: Option<i64>) -> String {
    let mut text = String::new();
    for (name, help, value) in NETWORK {
        let mut family = Family::new(name, COUNTER, help);
        for pod in pods {
            for interface in &pod.network {
                let [container, id, image, rest @ ..] = labelled(pod, "", &pod.cgroup, "", &pod.id);
                let mut all = vec![container, id, image, ("interface", interface.name.as_str())];
                all.extend(rest);
                family.put(&all, value(interface) as f64, at);
            }
        }
        text += &family.text();
    }
    text
}

fn machine(shared: &Shared) -> String {
    let machine = node::machine(shared);
    let mut cores = Family::new("machine_cpu_cores", GAUGE, "Number of logical CPU cores.");
    cores.put(&[], machine.cpu_millis as f64 / 1000.0, None);
    let mut memory =
        Family::new("machine_memory_bytes", GAUGE, "Amount of memory installed on the machine.");
    memory.put(&[], machine.memory_bytes as f64, None);
    cores.text() + &memory.text()
}

pub(super) async fn serve(shared: &Shared) -> Response {
    match shared.runtime.pod_figures().await {
        Ok(pods) => {
            let now = Timestamp::now().as_millisecond();
            answer(200, exposition(&pods, now) + &machine(shared))
        }
        Err(error) => answer(500, error.chain()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_have_cadvisors_names_and_labels() {
        let own = [(labels::POD_NAME, "p"), (labels::POD_NAMESPACE, "ns")];
        let own = own.map(|(k, v)| (k.to_owned(), v.to_owned()));
        let used = Figures { cpu_ns: 1_500_000_000, working_set: 7, ..Figures::default() };
        let throttled = Figures { cpu_quota: 10, throttled_periods: 3, ..used };
        let container = ContainerFigures {
            id: "abc".into(),
            labels: [(labels::CONTAINER_NAME.to_owned(), "c".to_owned())].into(),
            image: "i:1".into(),
            cgroup: "/kubepods/pod1/abc".into(),
            started_at: 5_000_000_000,
            used: throttled,
        };
        let interface =
            runtime::Interface { name: "eth0".into(), rx_bytes: 9, ..Default::default() };
        let pod = PodFigures {
            id: "sandbox".into(),
            labels: own.into(),
            cgroup: "/kubepods/pod1".into(),
            used,
            network: vec![interface],
            containers: vec![container],
            created_at: 0,
        };
        let text = exposition(&[pod], 8000);
        let place = r#"id="/kubepods/pod1/abc",image="i:1",name="abc",namespace="ns",pod="p"}"#;
        for line in [
            format!(r#"container_cpu_usage_seconds_total{{container="c",cpu="total",{place} 1.5 8000"#),
            format!(r#"container_memory_working_set_bytes{{container="c",{place} 7 8000"#),
            format!(r#"container_cpu_cfs_throttled_periods_total{{container="c",{place} 3 8000"#),
            format!(r#"container_start_time_seconds{{container="c",{place} 5 8000"#),
            r#"container_memory_working_set_bytes{container="",id="/kubepods/pod1",image="",name="",namespace="ns",pod="p"} 7 8000"#.to_owned(),
            r#"container_network_receive_bytes_total{container="",id="/kubepods/pod1",image="",interface="eth0",name="sandbox",namespace="ns",pod="p"} 9 8000"#.to_owned(),
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert_eq!(
            text.matches("container_cpu_cfs_throttled_periods_total{").count(),
            1,
            "no quota, no series"
        );
        assert_eq!(text.matches("# TYPE container_memory_rss gauge").count(), 1);
    }
}
