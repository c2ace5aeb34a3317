//! What a whole cluster costs: its start, its rest, and its pods, from outside as a user sees it.
//! Budgets: design §10. The yardstick of the same run is a bare program in new namespaces, which no
//! container can be started faster than.
//!
//!     cargo bench -p trireme

mod cluster;

use std::process::Command;
use std::time::{Duration, Instant};

use client::{Client, Follow, FollowEvent, Follower};
use cluster::{Cluster, Cost};
use k8s_openapi::api::core::v1::Pod;

const STARTS: usize = 5;
const PODS: usize = 40;
/// Nothing happens meanwhile; long enough for the kernel's clock ticks to count something.
const REST: Duration = Duration::from_secs(15);
/// What a start leaves to do (compaction, first lease) is not rest.
const SETTLE: Duration = Duration::from_secs(5);
const WAIT_MAX: Duration = Duration::from_secs(60);

fn main() {
    // `cargo test --benches` and such pass other arguments: this is no test.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let yard = yardstick();
    println!("yardstick: /bin/true in new namespaces, p50 {:.2} ms\n", ms(yard));
    println!("{:<44} {:>10} {:>9} {:>9}", "", "measured", "yards", "budget");
    starts(yard);
    let cluster = Cluster::up("bench");
    rest(&cluster);
    runtime.block_on(pods(&cluster, yard));
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// One figure, its ratio to the yardstick where it is a time, and its budget.
fn row(what: &str, value: f64, unit: &str, yard: Option<Duration>, budget: f64) {
    let ratio = yard.map(|y| format!("{:.1}", value / ms(y))).unwrap_or_default();
    let missed = if value > budget { "  MISSED" } else { "" };
    println!("{what:<44} {value:>7.1} {unit:<3} {ratio:>8} {budget:>6.1} {unit}{missed}");
}

/// The value that this share of all are below.
fn quantile(times: &mut [Duration], share: f64) -> Duration {
    times.sort();
    let at = (times.len() as f64 * share).ceil() as usize;
    times[at.clamp(1, times.len()) - 1]
}

fn yardstick() -> Duration {
    let one = || {
        let start = Instant::now();
        let args = ["--net", "--ipc", "--uts", "--mount", "--pid", "--fork", "/bin/true"];
        let done = Command::new("unshare").args(args).status().expect("unshare runs");
        assert!(done.success());
        start.elapsed()
    };
    let mut times: Vec<Duration> = (0..20).map(|_| one()).collect();
    quantile(&mut times, 0.5)
}

/// From the command to Ready and DNS, each time from nothing.
fn starts(yard: Duration) {
    let one = |_| {
        let start = Instant::now();
        let cluster = Cluster::up("start");
        let took = start.elapsed();
        drop(cluster);
        took
    };
    let mut times: Vec<Duration> = (0..STARTS).map(one).collect();
    let median = quantile(&mut times, 0.5);
    row("up to Ready and DNS, median of 5", ms(median), "ms", Some(yard), 1500.0);
}

fn rest(cluster: &Cluster) {
    std::thread::sleep(SETTLE);
    let before = cluster.cost();
    std::thread::sleep(REST);
    let after = cluster.cost();
    let percent = used(&before, &after).as_secs_f64() / REST.as_secs_f64() * 100.0;
    row("whole node at rest, resident", after.resident_mib, "MiB", None, 80.0);
    row("whole node at rest, of a core", percent, "%", None, 0.5);
}

fn used(before: &Cost, after: &Cost) -> Duration {
    after.cpu.saturating_sub(before.cpu)
}

fn pod(name: &str) -> Pod {
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
            "name": "main", "image": "trireme.local/demo:v1",
        }]},
    }))
    .expect("a pod")
}

async fn pods(cluster: &Cluster, yard: Duration) {
    let client = cluster.client();
    let mut follower = client.follow(Follow {
        version: "v1".into(),
        resource: "pods".into(),
        namespace: "default".into(),
        ..Follow::default()
    });
    // The first pod meets cold caches, and the namespace's account may not be there yet.
    cluster.account(&client).await;
    one(&client, &mut follower, "warm").await;
    let before = cluster.cost();
    let mut times = Vec::new();
    for number in 0..PODS {
        times.push(one(&client, &mut follower, &format!("one-{number}")).await);
    }
    let cpu = used(&before, &cluster.cost()) / PODS as u32;
    row("pod created to Running, p50 of 40", ms(quantile(&mut times, 0.5)), "ms", Some(yard), 40.0);
    row(
        "pod created to Running, p99 of 40",
        ms(quantile(&mut times, 0.99)),
        "ms",
        Some(yard),
        120.0,
    );
    println!("{:<44} {:>7.1} ms", "CPU of the whole node for one pod", ms(cpu));
    let last = burst(&client, &mut follower).await;
    row("40 pods at once, the last one", ms(last), "ms", Some(yard), 600.0);
}

async fn one(client: &Client, follower: &mut Follower, name: &str) -> Duration {
    let start = Instant::now();
    client.create("default", &pod(name)).await.expect("created");
    running(follower, 1, |pod| pod == name).await;
    start.elapsed()
}

async fn burst(client: &Client, follower: &mut Follower) -> Duration {
    let start = Instant::now();
    let names: Vec<String> = (0..PODS).map(|n| format!("burst-{n}")).collect();
    let made: Vec<_> = names
        .iter()
        .map(|name| {
            let (client, pod) = (client.clone(), pod(name));
            tokio::spawn(async move { client.create("default", &pod).await.map(drop) })
        })
        .collect();
    for made in made {
        made.await.expect("it ends").expect("created");
    }
    running(follower, PODS, |pod| pod.starts_with("burst-")).await;
    start.elapsed()
}

/// Waits until this many of the wanted pods were seen Running.
async fn running(follower: &mut Follower, count: usize, wanted: impl Fn(&str) -> bool) {
    let mut seen = std::collections::HashSet::new();
    let all = async {
        while seen.len() < count {
            let event = follower.next().await.expect("the follow goes on");
            let FollowEvent::Put(object) = event else { continue };
            let pod: Pod = object.decode().expect("a pod");
            let phase = pod.status.and_then(|s| s.phase).unwrap_or_default();
            let name = pod.metadata.name.unwrap_or_default();
            if phase == "Running" && wanted(&name) {
                seen.insert(name);
            }
        }
    };
    tokio::time::timeout(WAIT_MAX, all).await.expect("the pods run in time");
}
