//! Five thousand waiting pods on a thousand nodes, from the scheduler's start to the last binding seen.
//! Budget: 2,000 pods a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use apiserver::{Local, User};
use client::{Client, Informers, Tasks};
use tokio::task::JoinSet;

use crate::world::{Bench, CLIENTS, cpu, server};

const NODES: usize = 1_000;
const PODS: usize = 5_000;
const JSON: &str = "application/json";

fn node(n: usize) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"Node","metadata":{{"name":"n{n}"}},"status":{{"capacity":{{"cpu":"16","memory":"64Gi","pods":"110"}},"allocatable":{{"cpu":"16","memory":"64Gi","pods":"110"}},"conditions":[{{"type":"Ready","status":"True"}}]}}}}"#
    )
}

fn pod(n: usize) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"s{n}","labels":{{"app":"a{}"}}}},"spec":{{"tolerations":[{{"operator":"Exists"}}],"containers":[{{"name":"c","image":"i","resources":{{"requests":{{"cpu":"10m","memory":"16Mi"}}}}}}]}}}}"#,
        n % 50
    )
}

async fn create(bench: &Arc<Bench>, count: usize, path: &'static str, body: fn(usize) -> String) {
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let bench = bench.clone();
        clients.spawn(async move {
            for n in (client..count).step_by(CLIENTS) {
                let (code, answer) = bench.ask("POST", path, JSON, body(n)).await;
                assert!(code < 300, "{code} {}", String::from_utf8_lossy(&answer));
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.expect("a client never fails");
    }
}

pub(crate) async fn run() {
    let folder = tempfile::tempdir().expect("a folder");
    let bench = Arc::new(server(folder.path()).await);
    create(&bench, NODES, "/api/v1/nodes", node).await;
    create(&bench, PODS, "/api/v1/namespaces/default/pods", pod).await;
    let tasks = Tasks::new();
    let user = User::system_masters("scheduler");
    let local = Local::new(bench.server.clone(), user, "kube-scheduler", tasks.clone());
    let client = Client::new(Arc::new(local));
    let (before, start) = (cpu(), Instant::now());
    scheduler::run(&Informers::new(client, tasks.clone()), &tasks, scheduler::Config::default());
    while unbound(&bench).await {
        // Seen often enough for the figure, seldom enough not to be a part of it.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (elapsed, spent) = (start.elapsed(), cpu() - before);
    println!(
        "schedule 5,000 pods on 1,000 nodes {:>9.0} /s  {:>7.1} µs CPU each",
        PODS as f64 / elapsed.as_secs_f64(),
        spent.as_secs_f64() * 1e6 / PODS as f64
    );
    tasks.cancel();
}

async fn unbound(bench: &Bench) -> bool {
    let path = "/api/v1/pods?fieldSelector=spec.nodeName%3D&limit=1";
    let (_, bytes) = bench.ask("GET", path, "", String::new()).await;
    let list: serde_json::Value = serde_json::from_slice(&bytes).expect("a list");
    list["items"].as_array().is_some_and(|items| !items.is_empty())
}
