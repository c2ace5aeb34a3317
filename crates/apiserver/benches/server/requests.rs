//! One request at a time from each of several clients. Budgets: create 150 µs, get 45, patch 200,
//! list of 10,000 pods 60 ms, 8,000 durable creates a second.

use std::sync::Arc;
use std::time::Duration;

use crate::world::{pod, server};

const PODS: usize = 2_000;

pub(crate) async fn run(stick: Duration) {
    let folder = tempfile::tempdir().expect("a folder");
    let bench = Arc::new(server(folder.path()).await);
    const PATH: &str = "/api/v1/namespaces/default/pods";
    let json = "application/json";
    bench
        .measure("create a pod (durable)", stick, PODS, move |n| {
            ("POST", PATH.into(), json, pod(&format!("p{n}")))
        })
        .await;
    bench
        .measure("get a pod", stick, PODS * 10, move |n| {
            ("GET", format!("{PATH}/p{}", n % PODS), json, String::new())
        })
        .await;
    let merge = "application/merge-patch+json";
    let label = |n: usize| format!(r#"{{"metadata":{{"labels":{{"n":"{n}"}}}}}}"#);
    bench
        .measure("patch a pod (durable)", stick, PODS, move |n| {
            ("PATCH", format!("{PATH}/p{n}"), merge, label(n))
        })
        .await;
    bench
        .measure("list 2,000 pods", stick, 20, move |_| ("GET", PATH.into(), json, String::new()))
        .await;
}
