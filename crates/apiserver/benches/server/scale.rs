//! Ten thousand pods: memory (budget: 120 MiB), one list (60 ms), and what an event costs for each of
//! two thousand watchers (4 µs).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};

use crate::world::{Bench, cpu, pod, server};

const PODS: usize = 10_000;
const WATCHERS: usize = 2_000;
/// Changes that every watcher sees.
const CHANGES: usize = 50;
const PATH: &str = "/api/v1/namespaces/default/pods";

/// Resident memory of this process, in MiB.
pub(crate) fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = text.lines().find(|l| l.starts_with("VmRSS:")).expect("a process has memory");
    let kib: f64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
    kib / 1024.0
}

pub(crate) async fn run(stick: Duration) {
    let folder = tempfile::tempdir().expect("a folder");
    let bench = Arc::new(server(folder.path()).await);
    println!("memory of an idle server           {:>9.1} MiB", resident());
    let json = "application/json";
    bench
        .measure("create the first 10,000 pods", stick, PODS, move |n| {
            ("POST", PATH.into(), json, pod(&format!("p{n}")))
        })
        .await;
    println!("memory with 10,000 pods            {:>9.1} MiB", resident());
    bench
        .measure("list 10,000 pods", stick, 5, move |_| ("GET", PATH.into(), json, String::new()))
        .await;
    println!("memory after the lists             {:>9.1} MiB", resident());
    watchers(&bench).await;
}

/// Each watcher reads until it has seen every change.
async fn watchers(bench: &Arc<Bench>) {
    let revision = {
        let path = format!("{PATH}?limit=1");
        let (_, bytes) = bench.ask("GET", &path, "", String::new()).await;
        let list: serde_json::Value = serde_json::from_slice(&bytes).expect("a list");
        list["metadata"]["resourceVersion"].as_str().expect("a revision").to_owned()
    };
    let mut reading = tokio::task::JoinSet::new();
    for _ in 0..WATCHERS {
        let request = http::Request::get(format!("{PATH}?watch=true&resourceVersion={revision}"));
        let request = request.body(Full::<Bytes>::default()).expect("a request");
        let response = bench.server.serve_as(bench.user.clone(), request).await;
        let mut body = response.into_body();
        reading.spawn(async move {
            let mut seen = 0;
            while seen < CHANGES {
                let frame = body.frame().await.expect("the watch goes on").expect("never fails");
                let bytes = frame.into_data().unwrap_or_default();
                seen += bytes.iter().filter(|b| **b == b'\n').count();
            }
        });
    }
    let before = cpu();
    for n in 0..CHANGES {
        let merge = "application/merge-patch+json";
        let label = format!(r#"{{"metadata":{{"labels":{{"n":"{n}"}}}}}}"#);
        bench.ask("PATCH", &format!("{PATH}/p{n}"), merge, label).await;
    }
    while let Some(ended) = reading.join_next().await {
        ended.expect("a watcher never fails");
    }
    let each = (cpu() - before) / (WATCHERS * CHANGES) as u32;
    println!("one event to one of 2,000 watchers {:>9.2} µs CPU", each.as_secs_f64() * 1e6);
}
