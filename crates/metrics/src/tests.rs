//! Looks at nodes, in paused time.

use std::collections::VecDeque;

use serde_json::json;

use super::*;

/// A node that uses half a core; a container `c` that uses a quarter, since it was started.
struct Kubelet {
    begun: Instant,
    started: u64,
    looks: Mutex<VecDeque<String>>,
    is_down: bool,
}

const EPOCH: u64 = 1_700_000_000;

impl Kubelets for Kubelet {
    fn resources<'a>(
        &'a self,
        node: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + 'a>> {
        self.looks.lock().expect("no panic").push_back(node.to_owned());
        let now = self.begun.elapsed().as_secs_f64();
        let at = EPOCH * 1000 + (now * 1000.0) as u64;
        let life = EPOCH as f64 + now - self.started as f64;
        let labels = r#"{container="c",namespace="default",pod="p"}"#;
        let text = format!(
            "# HELP x y\nnode_cpu_usage_seconds_total {} {at}\nnode_memory_working_set_bytes 4096 {at}\n\
             container_cpu_usage_seconds_total{labels} {} {at}\n\
             container_memory_working_set_bytes{labels} 1048576 {at}\n\
             container_start_time_seconds{labels} {} {at}\nother_total 1\n",
            1e6 + now / 2.0,
            life / 4.0,
            self.started,
        );
        let answer = if self.is_down { Err("connection refused".to_owned()) } else { Ok(text) };
        Box::pin(async move { answer })
    }
}

fn kubelet(started: u64, is_down: bool) -> Arc<Kubelet> {
    Arc::new(Kubelet { begun: Instant::now(), started, looks: Mutex::default(), is_down })
}

fn names(all: &[&str]) -> Vec<String> {
    all.iter().map(|name| (*name).to_owned()).collect()
}

fn near(cpu: u64, wanted: u64) -> bool {
    cpu.abs_diff(wanted) < 1_000_000
}

#[tokio::test(start_paused = true)]
async fn figures_are_there_at_once_and_are_kept_for_a_while() {
    let kubelet = kubelet(EPOCH - 3600, false);
    let metrics = ResourceMetrics::new(kubelet.clone());
    let all = names(&["n"]);
    let looks = || kubelet.looks.lock().expect("no panic").len();
    let first = metrics.of(&all, &all).await["n"].clone();
    assert_eq!(looks(), 2, "two looks make a rate");
    let node = first.node.expect("figures");
    assert!(near(node.cpu, 500_000_000), "{node:?}");
    assert_eq!((node.memory, node.window), (4096, 1000));
    let pod = &first.pods[&("default".to_owned(), "p".to_owned())];
    assert!(near(pod.containers[0].usage.cpu, 250_000_000), "{pod:?}");
    tokio::time::sleep(Duration::from_secs(14)).await;
    metrics.of(&all, &all).await;
    assert_eq!(looks(), 2);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let later = metrics.of(&all, &all).await["n"].clone();
    assert_eq!((looks(), later.node.expect("figures").window), (3, 15_000));
    // After an hour's silence the figures are of now, not of the hour.
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let later = metrics.of(&all, &all).await["n"].clone();
    assert_eq!((looks(), later.node.expect("figures").window), (5, 1000));
}

#[tokio::test(start_paused = true)]
async fn those_who_ask_together_cause_one_look() {
    let kubelet = kubelet(EPOCH - 3600, false);
    let metrics = ResourceMetrics::new(kubelet.clone());
    let all = names(&["n", "m"]);
    let asked = futures::future::join_all((0..10).map(|_| metrics.of(&all, &all)));
    asked.await;
    assert_eq!(kubelet.looks.lock().expect("no panic").len(), 4);
    // Nodes that are gone are forgotten.
    let left = names(&["n"]);
    metrics.of(&left, &left).await;
    assert_eq!(metrics.nodes.lock().expect("no panic").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_that_cannot_be_asked_is_left_alone_for_a_while() {
    let kubelet = kubelet(EPOCH, true);
    let metrics = ResourceMetrics::new(kubelet.clone());
    let all = names(&["n"]);
    for _ in 0..3 {
        assert_eq!(*metrics.of(&all, &all).await["n"], NodeFigures::default());
    }
    assert_eq!(kubelet.looks.lock().expect("no panic").len(), 1);
    tokio::time::sleep(REST).await;
    metrics.of(&all, &all).await;
    assert_eq!(kubelet.looks.lock().expect("no panic").len(), 2);
}

#[test]
fn a_container_that_was_started_since_counts_from_its_start() {
    let text = |at: u64, cpu: f64, started: f64| {
        format!(
            "container_cpu_usage_seconds_total{{container=\"c\",namespace=\"n\",pod=\"p\"}} {cpu} {at}\n\
             container_memory_working_set_bytes{{container=\"c\",namespace=\"n\",pod=\"p\"}} 1 {at}\n\
             container_start_time_seconds{{container=\"c\",namespace=\"n\",pod=\"p\"}} {started} {at}\n"
        )
    };
    let read = |text: String| Sample::read(&text).expect("read");
    let before = read(text(100_000, 50.0, 10.0));
    let cpu = |now: String| {
        let all = figures(Some(&before), &read(now));
        all.pods.values().next().map(|pod| pod.containers[0].usage.cpu)
    };
    assert_eq!(cpu(text(110_000, 60.0, 10.0)), Some(1_000_000_000));
    assert_eq!(cpu(text(110_000, 2.0, 106.0)), Some(500_000_000), "restarted");
    assert_eq!(cpu(text(110_000, 40.0, 10.0)), None, "a counter does not fall");
    assert_eq!(cpu(text(100_000, 60.0, 10.0)), None, "no time went by");
    assert_eq!(cpu(text(110_000, 60.0, 109.5)), None, "too young");
    assert!(Sample::read("<html>").is_err());
}

#[test]
fn objects_are_as_metrics_server_shows_them() {
    let usage = Usage { cpu: 12_345_678, memory: 3 << 20, at: 1_700_000_000_123, window: 75_020 };
    let now = "2023-11-14T22:13:21Z";
    let node = node_metrics("n", &json!({"a": "b"}), now, &usage);
    assert_eq!(
        node,
        json!({"kind": "NodeMetrics", "apiVersion": "metrics.k8s.io/v1beta1",
            "metadata": {"name": "n", "creationTimestamp": now, "labels": {"a": "b"}},
            "timestamp": "2023-11-14T22:13:20Z", "window": "1m15.02s",
            "usage": {"cpu": "12345678n", "memory": "3Mi"}})
    );
    let later = Usage { cpu: 1_000_000, memory: 1025, at: usage.at + 1, window: 15_000 };
    let container = |name: &str, usage| ContainerUsage { name: name.into(), usage };
    let pod = PodUsage { containers: vec![container("a", later), container("b", usage)] };
    let shown = pod_metrics(("ns", "p"), &json!({}), now, &pod).expect("shown");
    assert_eq!(shown["window"], "1m15.02s", "the earliest's");
    assert_eq!(shown["containers"][0]["usage"], json!({"cpu": "1m", "memory": "1025"}));
    let (columns, rows) = table(&[shown]);
    assert_eq!(columns[1]["name"], "cpu");
    assert_eq!(rows[0], json!(["p", "13345678n", "3146753", "1m15.02s"]));
    assert_eq!(pod_metrics(("ns", "p"), &json!({}), now, &PodUsage { containers: vec![] }), None);
    assert_eq!(table(&[]), (json!([]), vec![]));
}
