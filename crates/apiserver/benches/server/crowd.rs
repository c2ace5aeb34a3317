//! A hundred thousand pods, in a process of its own: memory, lists, and the start of a server that
//! finds them on disk.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::scale::resident;
use crate::world::{pod, server};

const PODS: usize = 100_000;
const PATH: &str = "/api/v1/namespaces/default/pods";

/// What the child processes are asked for, with the store's folder.
pub(crate) const FILL: &str = "crowd-fill";
pub(crate) const REOPEN: &str = "crowd-reopen";

/// Runs each part in a process of its own: the memory of one must not be the next one's.
pub(crate) fn run() {
    let folder = tempfile::tempdir().expect("a folder");
    for part in [FILL, REOPEN] {
        let program = std::env::current_exe().expect("this program");
        let status = Command::new(program).arg(part).arg(folder.path()).status();
        assert!(status.expect("a child process").success(), "{part}");
    }
}

pub(crate) async fn fill(folder: &str, stick: Duration) {
    let bench = Arc::new(server(folder.as_ref()).await);
    let json = "application/json";
    bench
        .measure("create 100,000 pods", stick, PODS, move |n| {
            ("POST", PATH.into(), json, pod(&format!("p{n}")))
        })
        .await;
    println!("memory with 100,000 pods           {:>9.1} MiB", resident());
    bench
        .measure("list 100,000 pods", stick, 2, move |_| ("GET", PATH.into(), json, String::new()))
        .await;
    bench
        .measure("list 500 of 100,000 pods", stick, 200, move |_| {
            ("GET", format!("{PATH}?limit=500"), json, String::new())
        })
        .await;
    bench
        .measure("get one of 100,000 pods", stick, 20_000, move |n| {
            ("GET", format!("{PATH}/p{n}"), json, String::new())
        })
        .await;
    println!("memory after the lists             {:>9.1} MiB", resident());
}

pub(crate) async fn reopen(folder: &str) {
    let began = Instant::now();
    let bench = server(folder.as_ref()).await;
    println!("start with 100,000 pods on disk    {:>9.2} s", began.elapsed().as_secs_f64());
    println!("memory after the start             {:>9.1} MiB", resident());
    let (code, _) = bench.ask("GET", &format!("{PATH}/p0"), "", String::new()).await;
    assert_eq!(code, 200);
}
