//! The scheduler alone, with the names and sizes of upstream's scheduler_perf workloads at 5,000 nodes.
//!
//! The machine's speed varies, so every figure is also given as a ratio to a yardstick measured in the
//! same run: a plain scan over all nodes for those with room, which a scheduler without memory would do
//! for every pod. Budget: SchedulingBasic ≥ 10,000 decisions/s, and its second half not slower than its
//! first by more than a quarter.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use rustix::time::{ClockId, clock_gettime};
use scheduler::perf::{Decided, World};
use serde_json::{Value, json};

const NODES: usize = 5_000;
const ZONE: &str = "topology.kubernetes.io/zone";

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let part = |n: i64| u64::try_from(n).unwrap_or(0);
    Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

fn node(n: usize, zones: usize) -> Node {
    let name = format!("node-{n}");
    let value = json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name,
        ZONE: format!("zone{}", n % zones)}}, "spec": {}, "status": {"allocatable":
        {"cpu": "4", "memory": "32Gi", "pods": "110"}}});
    serde_json::from_value(value).expect("a node")
}

fn pod(name: &str, extra: &Value) -> Pod {
    let mut value = json!({"metadata": {"name": name, "namespace": "default", "uid": name,
        "labels": {"color": "none"}}, "spec": {"containers": [{"name": "pause",
        "image": "registry.k8s.io/pause:3.10", "resources":
        {"requests": {"cpu": "100m", "memory": "500Mi"}}}]}});
    merge(&mut value, extra);
    serde_json::from_value(value).expect("a pod")
}

struct Workload {
    name: &'static str,
    zones: usize,
    init: (usize, Value),
    measured: (usize, Value),
    /// What each decision must be.
    expects: fn(&Decided) -> bool,
}

fn bound(decided: &Decided) -> bool {
    matches!(decided, Decided::Bound(_))
}

fn unschedulable(decided: &Decided) -> bool {
    matches!(decided, Decided::Unschedulable(_))
}

fn affinity(kind: &str, key: &str, color: &str) -> Value {
    json!({"metadata": {"labels": {"color": color}}, "spec": {"affinity": {kind: {
        "requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": key,
            "labelSelector": {"matchLabels": {"color": color}}}]}}}})
}

fn preferred(kind: &str, color: &str) -> Value {
    json!({"metadata": {"labels": {"color": color}}, "spec": {"affinity": {kind: {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": {
            "topologyKey": "kubernetes.io/hostname",
            "labelSelector": {"matchLabels": {"color": color}}}}]}}}})
}

fn spread(when: &str) -> Value {
    json!({"metadata": {"labels": {"color": "blue"}}, "spec": {"topologySpreadConstraints": [
        {"maxSkew": 5, "topologyKey": ZONE, "whenUnsatisfiable": when,
            "labelSelector": {"matchLabels": {"color": "blue"}}}]}})
}

fn cpu_of(cpu: &str, priority: i32) -> Value {
    json!({"spec": {"priority": priority, "containers": [{"name": "pause", "resources":
        {"requests": {"cpu": cpu, "memory": "500Mi"}}}]}})
}

fn workloads() -> Vec<Workload> {
    let of =
        |name, zones, init, measured, expects| Workload { name, zones, init, measured, expects };
    let plain = || json!({});
    let in_zones = json!({"spec": {"affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": ZONE, "operator": "In",
                "values": ["zone0", "zone1"]}]}]}}}}});
    let anti = || affinity("podAntiAffinity", "kubernetes.io/hostname", "green");
    vec![
        of("SchedulingBasic", 1, (1000, plain()), (10_000, plain()), bound),
        of("SchedulingPodAntiAffinity", 1, (1000, anti()), (2000, anti()), bound),
        of(
            "SchedulingPodAffinity",
            1,
            (5000, affinity("podAffinity", ZONE, "blue")),
            (5000, affinity("podAffinity", ZONE, "blue")),
            bound,
        ),
        of(
            "SchedulingPreferredPodAffinity",
            1,
            (5000, preferred("podAffinity", "red")),
            (5000, preferred("podAffinity", "red")),
            bound,
        ),
        of(
            "SchedulingPreferredPodAntiAffinity",
            1,
            (5000, preferred("podAntiAffinity", "yellow")),
            (5000, preferred("podAntiAffinity", "yellow")),
            bound,
        ),
        of("SchedulingNodeAffinity", 10, (5000, in_zones.clone()), (5000, in_zones), bound),
        of("TopologySpreading", 3, (5000, plain()), (5000, spread("DoNotSchedule")), bound),
        of(
            "PreferredTopologySpreading",
            3,
            (5000, plain()),
            (5000, spread("ScheduleAnyway")),
            bound,
        ),
        of(
            "MixedSchedulingBasePod",
            1,
            (5000, affinity("podAffinity", ZONE, "blue")),
            (5000, plain()),
            bound,
        ),
        of(
            "PreemptionBasic",
            1,
            (20_000, cpu_of("900m", 0)),
            (2000, cpu_of("3000m", 10)),
            |d| matches!(d, Decided::Preempts { victims, .. } if *victims == 3),
        ),
        // Preemption where anti-affinity exists: the case that took seconds a pod.
        of(
            "PreemptionAntiAffinity",
            1,
            (5000, anti()),
            (500, {
                let mut value = anti();
                merge(&mut value, &json!({"spec": {"priority": 10}}));
                value
            }),
            |d| matches!(d, Decided::Preempts { victims: 1, .. }),
        ),
        of("Unschedulable", 1, (1000, plain()), (2000, cpu_of("9", 0)), unschedulable),
    ]
}

/// Seconds of CPU for `count` decisions.
fn decide(world: &mut World, count: usize, expects: fn(&Decided) -> bool) -> f64 {
    let before = cpu();
    for n in 0..count {
        let decided = world.schedule_one().expect("a pod waits");
        assert!(expects(&decided), "decision {n}: {decided:?}");
    }
    (cpu() - before).as_secs_f64()
}

fn run(workload: &Workload) {
    let mut world = World::default();
    (0..NODES).for_each(|n| world.add_node(node(n, workload.zones)));
    let (count, template) = &workload.init;
    (0..*count).for_each(|n| world.add_pod(pod(&format!("init-{n}"), template)));
    decide(&mut world, *count, bound);
    let (count, template) = &workload.measured;
    let probe = pod("probe", template);
    let before = cpu();
    let scans = 200;
    let found: usize = (0..scans).map(|_| world.plain_scan(&probe)).sum();
    let yardstick = (cpu() - before).as_secs_f64() / f64::from(scans);
    std::hint::black_box(found);
    (0..*count).for_each(|n| world.add_pod(pod(&format!("measured-{n}"), template)));
    let half = count / 2;
    let first = decide(&mut world, half, workload.expects);
    let second = decide(&mut world, count - half, workload.expects);
    let each = (first + second) / *count as f64;
    println!(
        "{:<36}{:>9.0} decisions/s {:>8.1} µs CPU each {:>6.2} plain scans; 2nd half / 1st {:>5.2}",
        workload.name,
        1.0 / each,
        each * 1e6,
        each / yardstick,
        second / first
    );
}

fn main() {
    let only = std::env::args().nth(1).filter(|arg| !arg.starts_with('-'));
    for workload in workloads() {
        if only.as_ref().is_none_or(|only| workload.name.contains(only.as_str())) {
            run(&workload);
        }
    }
}
