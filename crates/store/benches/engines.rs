//! The embedded engine against the ready-made ones, behind the same trait, on the same disk, in one
//! run; beside them, as yardstick, a plain file that gets the same bytes by append and fdatasync.
//! README.md holds the figures and what was made of them.
//!
//!     cargo bench -p store [engine …]
//!
//! `STORE_BENCH_FOLDER` says where to measure (default: the current folder's `target`).

mod fjall_engine;
mod raw_engine;
mod redb_engine;
mod sqlite_engine;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::Draft;
use serde_json::json;
use store::{Collection, CollectionSpec, Engine, Expect, LogEngine, Store, Write};

const PREFIX: &str = "/registry/pods/";
const WRITERS: usize = 32;
const CREATES: usize = 40_000;
const UPDATES: usize = 100_000;
const OBJECTS: usize = 1_000;
const MANY: usize = 150_000;

type Open = fn(&Path) -> Box<dyn Engine>;

const ENGINES: [(&str, Open); 5] = [
    ("append+fdatasync", |p| Box::new(raw_engine::RawEngine::open(p))),
    ("log (ours)", |p| Box::new(LogEngine::open(p).expect("opens"))),
    ("fjall 3.1", |p| Box::new(fjall_engine::FjallEngine::open(p).expect("opens"))),
    ("redb 4.4", |p| Box::new(redb_engine::RedbEngine::open(p))),
    ("SQLite (WAL)", |p| Box::new(sqlite_engine::SqliteEngine::open(p))),
];

/// CPU time of this process so far, all threads that live.
fn cpu() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").expect("procfs");
    let one = |task: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(tasks.filter_map(one).sum())
}

/// Bytes this process caused to be written to disks.
fn written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").expect("procfs");
    let line = io.lines().find_map(|l| l.strip_prefix("write_bytes: "));
    line.and_then(|n| n.parse().ok()).expect("Linux counts")
}

/// Bytes of disk that a folder takes.
fn size(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(folder).expect("readable").map(|e| e.expect("entry"));
    entries
        .map(|e| {
            if e.path().is_dir() {
                size(&e.path())
            } else {
                e.metadata().map_or(0, |m| m.blocks() * 512)
            }
        })
        .sum()
}

/// About 2 KB, as a pod is.
fn pod(name: &str, n: usize) -> Draft {
    let env: Vec<_> = (0..24).map(|i| json!({"name": format!("VARIABLE_{i}"), "value": format!("a value of some length {}", n * 31 + i)})).collect();
    let spec = json!({"containers": [{"name": "web", "image": "registry.example.com/team/web:1.2.3", "env": env}]});
    Draft::new(
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "uid": format!("{n:032x}")}, "spec": spec}),
        &["spec.nodeName"],
    )
}

fn open(folder: &Path, with: Open) -> (Store, Arc<Collection>) {
    let spec = CollectionSpec { prefix: PREFIX.into(), selectable: &["spec.nodeName"] };
    let store = Store::open(with(folder), vec![spec]).expect("loads");
    let pods = store.collection(PREFIX).expect("registered");
    (store, pods)
}

/// Writes `count` times over `keys` keys from as many tasks as there are writers.
async fn write(store: &Store, pods: &Arc<Collection>, count: usize, keys: usize, writers: usize) {
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..writers {
        let (store, pods) = (store.clone(), pods.clone());
        tasks.spawn(async move {
            for n in (writer..count).step_by(writers) {
                let key = format!("default/pod-{:06}", n % keys);
                let expect =
                    pods.get(&key).map_or(Expect::Absent, |o| Expect::Revision(o.revision()));
                let draft = Some(pod(&key, n));
                let write = Write { collection: pods.clone(), key, expect, draft };
                store.write(write).await.expect("written");
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no writer fails");
    }
}

/// CPU that making the objects takes, which is not the store's.
fn making(count: usize) -> Duration {
    let before = cpu();
    (0..count).for_each(|n| drop(std::hint::black_box(pod(&format!("default/pod-{n:06}"), n))));
    cpu() - before
}

struct Row {
    name: &'static str,
    cells: Vec<String>,
}

fn fresh(root: &Path) -> PathBuf {
    let folder = root.join("engine");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).expect("removed");
    }
    std::fs::create_dir_all(root).expect("a place to measure");
    folder
}

async fn creates(root: &Path, with: Open, cells: &mut Vec<String>) {
    let folder = fresh(root);
    let (store, pods) = open(&folder, with);
    let spent = making(CREATES);
    let (cpu_before, bytes, start) = (cpu(), written(), Instant::now());
    write(&store, &pods, CREATES, CREATES, WRITERS).await;
    let elapsed = start.elapsed();
    let each = (cpu() - cpu_before).saturating_sub(spent) / CREATES as u32;
    cells.push(format!("{:.0}", CREATES as f64 / elapsed.as_secs_f64()));
    cells.push(format!("{:.1}", each.as_secs_f64() * 1e6));
    cells.push(format!("{}", (written() - bytes) / CREATES as u64));
    // One at a time: the latency of a flush.
    let start = Instant::now();
    write(&store, &pods, 500, CREATES, 1).await;
    cells.push(format!("{:.2}", start.elapsed().as_secs_f64() * 1e3 / 500.0));
    store.close().await;
}

async fn churn(root: &Path, with: Open, cells: &mut Vec<String>) {
    let folder = fresh(root);
    let (store, pods) = open(&folder, with);
    let bytes = written();
    write(&store, &pods, UPDATES, OBJECTS, WRITERS).await;
    cells.push(format!("{}", (written() - bytes) / UPDATES as u64));
    store.close().await;
    cells.push(format!("{:.0}", size(&folder) as f64 / 1e6));
}

async fn opening(root: &Path, with: Open, cells: &mut Vec<String>) {
    let folder = fresh(root);
    let (store, pods) = open(&folder, with);
    write(&store, &pods, MANY, MANY, 256).await;
    store.close().await;
    drop((store, pods));
    let start = Instant::now();
    let mut count = 0;
    let mut engine = with(&folder);
    engine.load(&mut |_| count += 1).expect("loads");
    let engine_alone = start.elapsed();
    drop(engine);
    assert_eq!(count, MANY);
    let start = Instant::now();
    let (store, pods) = open(&folder, with);
    cells.push(format!("{:.2}", engine_alone.as_secs_f64()));
    cells.push(format!("{:.2}", start.elapsed().as_secs_f64()));
    assert_eq!(pods.len(), MANY);
    store.close().await;
    cells.push(format!("{:.0}", size(&folder) as f64 / 1e6));
}

fn main() {
    let root = std::env::var("STORE_BENCH_FOLDER").unwrap_or_else(|_| "target".into());
    let root = Path::new(&root).join("store-bench");
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    println!("one object is {} bytes", pod("default/pod-000000", 1).stored().len());
    println!(
        "| engine | creates/s | CPU µs each | bytes written each | ms alone | bytes per update | MB after {UPDATES} updates of {OBJECTS} | s to read {MANY} | s to open the store | MB of them |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for (name, with) in ENGINES {
        if !wanted.is_empty() && !wanted.iter().any(|w| name.contains(w.as_str())) {
            continue;
        }
        let mut row = Row { name, cells: Vec::new() };
        runtime.block_on(async {
            creates(&root, with, &mut row.cells).await;
            churn(&root, with, &mut row.cells).await;
            opening(&root, with, &mut row.cells).await;
        });
        println!("| {} | {} |", row.name, row.cells.join(" | "));
    }
    std::fs::remove_dir_all(&root).expect("removed");
}
