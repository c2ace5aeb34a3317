//! 100,000 updates of a bounded set of objects: files and memory stay bounded.

use std::path::Path;

use crate::harness::{child, object, open, put, size, try_put};

const FOLDER: &str = "STORE_SOAK_FOLDER";
const UPDATES: u64 = 100_000;
const OBJECTS: u64 = 512;
/// Tasks that write at once; each has objects of its own.
const TASKS: u64 = 64;
/// After this share the watch log has reached its bound.
const WARM_UP: u64 = UPDATES / 4;

#[test]
fn churn_leaves_files_and_memory_bounded() {
    let folder = tempfile::tempdir().expect("folder");
    // A process of its own, whose memory no other test touches.
    let status = child("soak::the_churning_child").env(FOLDER, folder.path()).status();
    assert!(status.expect("runs").success());
}

/// Resident memory of this process in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("Linux tells");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

async fn churn(
    store: &store::Store,
    pods: &std::sync::Arc<store::Collection>,
    updates: u64,
    base: u64,
) {
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let (store, pods) = (store.clone(), pods.clone());
        tasks.spawn(async move {
            for n in 0..updates / TASKS {
                let key = format!("pod-{}", task + n % (OBJECTS / TASKS) * TASKS);
                try_put(&store, &pods, &key, object(&key, base + n)).await.expect("written");
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no task fails");
    }
}

/// Not a test by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_churning_child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let (store, pods) = open(folder);
    churn(&store, &pods, WARM_UP, 100_000).await;
    let warm = resident();
    churn(&store, &pods, UPDATES - WARM_UP, 200_000).await;
    let (after, files) = (resident(), size(folder));
    let live: u64 = pods
        .list("", None, 0, usize::MAX, &|_| true)
        .expect("now")
        .objects
        .iter()
        .map(|o| o.json().len() as u64 + 64)
        .sum();
    println!("resident {warm} then {after} KiB; {files} bytes of files for {live} live");
    assert!(after < warm + (16 << 10), "memory grew from {warm} to {after} KiB");
    // Twice what lives, two segments of slack, the active one, and the spare ones.
    assert!(files < 2 * live + (7 * (8 << 20)), "{files} bytes of files for {live} live");
    assert_eq!(pods.len() as u64, OBJECTS);
    put(&store, &pods, "pod-0", 1).await;
    store.close().await;
    let (_, pods) = open(folder);
    assert_eq!(pods.len() as u64, OBJECTS);
}
