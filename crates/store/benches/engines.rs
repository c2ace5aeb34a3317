//! The embedded engine against the ready-made ones, behind the same trait, on the same disk, in one
//! run; beside them, as yardstick, a plain file that gets the same bytes by append and fdatasync.
//! README.md holds the figures and what was made of them.
//!
//!     cargo bench -p store [engine …]
//!
//! `STORE_BENCH_FOLDER` says where to measure (default: the current folder's `target`).

mod damage;
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
use tokio::runtime::Runtime;

const PREFIX: &str = "/registry/pods/";
const WRITERS: usize = 32;
const CREATES: usize = 8_000;
/// Rounds of creations, in which the engines take turns: the disk of a shared machine is now fast,
/// now slow. The median counts.
const ROUNDS: usize = 7;
const UPDATES: usize = 100_000;
/// A multiple of the writers, so that each has keys of its own.
const OBJECTS: usize = 1_024;
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
    let spec =
        CollectionSpec { prefix: PREFIX.into(), selectable: &["spec.nodeName"], indexed: None };
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

/// One round of creations.
struct Round {
    per_second: f64,
    cpu_micros: f64,
    bytes: f64,
    /// Milliseconds of a write with nobody beside it.
    alone: f64,
}

fn median(rounds: &[Round], of: impl Fn(&Round) -> f64) -> f64 {
    let mut all: Vec<f64> = rounds.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn fresh(root: &Path) -> PathBuf {
    let folder = root.join("engine");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).expect("removed");
    }
    std::fs::create_dir_all(root).expect("a place to measure");
    folder
}

async fn creates(root: &Path, with: Open) -> Round {
    let folder = fresh(root);
    let (store, pods) = open(&folder, with);
    let spent = making(CREATES);
    let (cpu_before, bytes, start) = (cpu(), written(), Instant::now());
    write(&store, &pods, CREATES, CREATES, WRITERS).await;
    let per_second = CREATES as f64 / start.elapsed().as_secs_f64();
    let each = (cpu() - cpu_before).saturating_sub(spent) / CREATES as u32;
    let bytes = (written() - bytes) as f64 / CREATES as f64;
    let start = Instant::now();
    write(&store, &pods, 200, CREATES, 1).await;
    let alone = start.elapsed().as_secs_f64() * 1e3 / 200.0;
    store.close().await;
    Round { per_second, cpu_micros: each.as_secs_f64() * 1e6, bytes, alone }
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
    if damage::is_child(&ENGINES) {
        return;
    }
    let root = std::env::var("STORE_BENCH_FOLDER").unwrap_or_else(|_| "target".into());
    let root = Path::new(&root).join("store-bench");
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let runtime = Runtime::new().expect("a runtime");
    println!("one object is {} bytes", pod("default/pod-000000", 1).stored().len());
    let chosen = |name: &str| wanted.is_empty() || wanted.iter().any(|w| name.contains(w.as_str()));
    let engines: Vec<(&str, Open)> = ENGINES.into_iter().filter(|(name, _)| chosen(name)).collect();
    table_of_damage(&root, &engines);
    table_of_creations(&root, &engines, &runtime);
    table_of_many(&root, &engines, &runtime);
    std::fs::remove_dir_all(&root).expect("removed");
}

fn head(columns: &str) {
    println!("\n{columns}\n{}", "|---".repeat(columns.matches('|').count() - 1) + "|");
}

fn table_of_damage(root: &Path, engines: &[(&str, Open)]) {
    head("| engine | flipped bytes refused | harmless | wrong in silence |");
    // Not the yardstick, which has nothing to notice damage by.
    for (name, with) in engines.iter().filter(|(name, _)| *name != ENGINES[0].0) {
        let damage::Verdict { refused, harmless, wrong } = damage::judge(root, name, *with);
        println!("| {name} | {refused} | {harmless} | {wrong} |");
    }
}

fn table_of_creations(root: &Path, engines: &[(&str, Open)], runtime: &Runtime) {
    let mut rounds: Vec<Vec<Round>> = engines.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for ((_, with), rounds) in engines.iter().zip(&mut rounds) {
            rounds.push(runtime.block_on(creates(root, *with)));
        }
    }
    head("| engine | creates/s | best round | CPU µs each | bytes written each | ms alone |");
    for ((name, _), rounds) in engines.iter().zip(&rounds) {
        let best = rounds.iter().map(|r| r.per_second).fold(0.0, f64::max);
        println!(
            "| {name} | {:.0} | {best:.0} | {:.1} | {:.0} | {:.2} |",
            median(rounds, |r| r.per_second),
            median(rounds, |r| r.cpu_micros),
            median(rounds, |r| r.bytes),
            median(rounds, |r| r.alone),
        );
    }
}

fn table_of_many(root: &Path, engines: &[(&str, Open)], runtime: &Runtime) {
    head(
        "| engine | bytes written per update | MB after the updates | s to read many | s to open the store | MB of many |",
    );
    for (name, with) in engines {
        let mut cells = Vec::new();
        runtime.block_on(async {
            churn(root, *with, &mut cells).await;
            opening(root, *with, &mut cells).await;
        });
        println!("| {name} | {} |", cells.join(" | "));
    }
}
