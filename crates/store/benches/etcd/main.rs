//! The store over a real etcd against that etcd alone, in one run: what conditional writes that are
//! visible when they are answered, and reads that show all that was acknowledged, cost above puts and
//! gets. README.md holds the figures.
//!
//!     cargo bench -p store --bench etcd

mod bare;

use std::future::Future;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::Draft;
use bare::Bare;
use serde_json::json;
use store::{Collection, CollectionSpec, EtcdOptions, Expect, Form, Store, Write};

const PREFIX: &str = "/registry/pods/";
const WORKERS: usize = 32;
const COUNT: usize = 4_000;
/// Operations with nobody beside them.
const ALONE: usize = 200;
/// Both take turns, since the disk is now fast, now slow; the median counts.
const ROUNDS: usize = 5;

struct Etcd {
    process: Child,
    _folder: tempfile::TempDir,
    address: String,
}

impl Etcd {
    fn start() -> Etcd {
        let folder = tempfile::tempdir_in("target").or_else(|_| tempfile::tempdir());
        let folder = folder.expect("a folder");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        drop(listener);
        let url = format!("http://{address}");
        let process = Command::new("etcd")
            .arg("--data-dir")
            .arg(folder.path())
            .args(["--listen-peer-urls", "http://127.0.0.1:0"])
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is installed (cargo xtask test does it)");
        Etcd { process, _folder: folder, address }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.process.kill().unwrap_or_default();
        drop(self.process.wait());
    }
}

/// About 2 KB, as a pod is.
fn pod(name: &str, n: usize) -> serde_json::Value {
    let variable = |i| json!({"name": format!("VARIABLE_{i}"), "value": format!("a value of some length {}", n * 31 + i)});
    let env: Vec<_> = (0..24).map(variable).collect();
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": format!("{n:032x}")},
        "spec": {"containers": [{"name": "web", "image": "registry.example.com/team/web:1.2.3", "env": env}]}})
}

/// One kind of operation: so many a second by many, and milliseconds of one alone.
struct Round {
    per_second: f64,
    alone: f64,
}

async fn measure<F: Future<Output = ()> + Send + 'static>(
    operation: impl Fn(usize) -> F + Clone + Send + 'static,
) -> Round {
    let start = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..WORKERS {
        let operation = operation.clone();
        workers.spawn(async move {
            for n in (worker..COUNT).step_by(WORKERS) {
                operation(n).await;
            }
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended.expect("no worker fails");
    }
    let per_second = COUNT as f64 / start.elapsed().as_secs_f64();
    let start = Instant::now();
    for n in COUNT..COUNT + ALONE {
        operation(n).await;
    }
    Round { per_second, alone: start.elapsed().as_secs_f64() * 1e3 / ALONE as f64 }
}

fn key(n: usize) -> String {
    format!("default/pod-{n:06}")
}

/// Puts and gets of the value's JSON, which is longer than its protobuf: etcd's costs are per write.
async fn bare(etcd: &Etcd) -> [Round; 2] {
    let bare = Bare::connect(&etcd.address).await;
    let reader = bare.clone();
    let writes = measure(move |n| {
        let bare = bare.clone();
        async move { bare.put(format!("/bare/{}", key(n)), pod(&key(n), n).to_string().into()).await }
    });
    let writes = writes.await;
    let reads = measure(move |n| {
        let reader = reader.clone();
        async move { reader.get(format!("/bare/{}", key(n))).await }
    });
    [writes, reads.await]
}

async fn connect(etcd: &Etcd) -> (Store, Arc<Collection>) {
    let options = EtcdOptions {
        servers: vec![format!("http://{}", etcd.address)],
        ca_file: None,
        cert_file: None,
        key_file: None,
        prefix: "/registry".into(),
        compaction_interval: Duration::from_secs(300),
        transformer: None,
        form: Form::default(),
    };
    let spec =
        CollectionSpec { prefix: PREFIX.into(), selectable: &["spec.nodeName"], indexed: None };
    let store = Store::connect(options, vec![spec]).await.expect("connects");
    let pods = store.collection(PREFIX).expect("registered");
    (store, pods)
}

async fn ours(etcd: &Etcd) -> [Round; 3] {
    let (store, pods) = connect(etcd).await;
    let (writer, collection) = (store.clone(), pods.clone());
    let writes = measure(move |n| {
        let (store, collection) = (writer.clone(), collection.clone());
        async move {
            let draft = Some(Draft::new(&pod(&key(n), n), &["spec.nodeName"]));
            let write = Write { collection, key: key(n), expect: Expect::Absent, draft };
            store.write(write).await.expect("written");
        }
    });
    let writes = writes.await;
    let (reader, collection) = (store.clone(), pods.clone());
    let fresh = measure(move |n| {
        let (store, pods) = (reader.clone(), collection.clone());
        async move {
            store.catch_up().await.expect("reachable");
            assert!(pods.get(&key(n)).is_some());
        }
    });
    let fresh = fresh.await;
    let any = measure(move |n| {
        let pods = pods.clone();
        async move { assert!(pods.get(&key(n)).is_some()) }
    });
    let rounds = [writes, fresh, any.await];
    store.close().await;
    rounds
}

fn median(rounds: &[Round], of: fn(&Round) -> f64) -> f64 {
    let mut all: Vec<f64> = rounds.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    const NAMES: [&str; 5] = [
        "put, etcd alone",
        "write, the store",
        "get, etcd alone",
        "read of the newest, the store",
        "read of any revision, the store",
    ];
    let mut rows: [Vec<Round>; 5] = Default::default();
    for _ in 0..ROUNDS {
        let etcd = Etcd::start();
        // Before anything is measured: it waits until etcd answers.
        runtime.block_on(async { connect(&etcd).await.0.close().await });
        let [put, get] = runtime.block_on(bare(&etcd));
        let [write, fresh, any] = runtime.block_on(ours(&etcd));
        for (row, round) in rows.iter_mut().zip([put, write, get, fresh, any]) {
            row.push(round);
        }
    }
    println!("\n| operation | a second, by {WORKERS} | ms alone |\n|---|---|---|");
    for (name, row) in NAMES.iter().zip(&rows) {
        let (rate, alone) = (median(row, |r| r.per_second), median(row, |r| r.alone));
        println!("| {name} | {rate:.0} | {alone:.3} |");
    }
}
