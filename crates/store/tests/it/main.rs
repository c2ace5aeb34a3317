//! The store on a real disk: killed at random points, damaged, locked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use api::{Draft, Object};
use serde_json::json;
use store::{Collection, CollectionSpec, Expect, LogEngine, Store, Write};

const PREFIX: &str = "/registry/pods/";
/// Names the child's folder, and makes `the_writing_child` write instead of pass.
const FOLDER: &str = "STORE_CRASH_FOLDER";
/// Tasks that write at once, each on keys of its own.
const TASKS: u64 = 8;
const KEYS: u64 = 4;

fn open(folder: &Path) -> (Store, Arc<Collection>) {
    let spec = CollectionSpec { prefix: PREFIX.into(), selectable: &[] };
    let engine = LogEngine::open(folder).expect("opens");
    let store = Store::open(Box::new(engine), vec![spec]).expect("loads");
    let pods = store.collection(PREFIX).expect("registered");
    (store, pods)
}

async fn put(store: &Store, pods: &Arc<Collection>, key: &str, n: u64) -> Arc<Object> {
    let expect = pods.get(key).map_or(Expect::Absent, |o| Expect::Revision(o.revision()));
    let draft = Some(Draft::new(&object(key, n), &[]));
    let write = Write { collection: pods.clone(), key: key.into(), expect, draft };
    store.write(write).await.expect("written")
}

/// The filler follows from `n`, so that half an object would be seen.
fn object(key: &str, n: u64) -> serde_json::Value {
    let filler = n.to_string().repeat(300);
    json!({"metadata": {"name": key}, "n": n, "filler": filler})
}

/// Not a test by itself: the process that the crash test kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_writing_child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let (store, pods) = open(Path::new(&folder));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let (store, pods) = (store.clone(), pods.clone());
        tasks.spawn(async move {
            for n in 0u64.. {
                let key = format!("t{task}-k{}", n % KEYS);
                let was = pods.get(&key).map_or(0, |o| number(&o));
                let written = put(&store, &pods, &key, was + 1).await;
                // One write, so that the parent never reads a mixed line.
                let line = format!("\nack {key} {} {}\n", written.revision(), was + 1);
                std::io::stdout().write_all(line.as_bytes()).expect("parent reads");
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

fn number(object: &Object) -> u64 {
    let value: serde_json::Value = serde_json::from_str(&text(object)).expect("whole");
    value["n"].as_u64().expect("a number")
}

fn text(object: &Object) -> String {
    String::from_utf8(object.json().to_vec()).expect("UTF-8")
}

/// Last acknowledged revision and number of each key.
type Acknowledged = BTreeMap<String, (u64, u64)>;

/// Lets a child write until `count` acknowledgements, kills it, and adds all it acknowledged.
fn write_and_kill(folder: &Path, count: usize, seen: &mut Acknowledged) {
    let mut child = Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", "the_writing_child", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut read = 0;
    for line in lines.map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        let ["ack", key, revision, n] = words[..] else { continue };
        let (Ok(revision), Ok(n)) = (revision.parse(), n.parse()) else { continue };
        let last = seen.entry(key.to_owned()).or_default();
        assert!(revision > last.0, "{key} went back from {} to {revision}", last.0);
        *last = (revision, n);
        read += 1;
        if read == count {
            // SIGKILL; what it wrote into the pipe before that is still read below.
            child.kill().expect("killed");
        }
    }
    assert!(read >= count, "the child ended by itself after {read} of {count}");
    child.wait().expect("reaped");
}

fn verify(folder: &Path, seen: &Acknowledged) {
    let (store, pods) = open(folder);
    for (key, (revision, n)) in seen {
        let stored = pods.get(key).unwrap_or_else(|| panic!("{key} is lost"));
        let held = number(&stored);
        assert!(
            stored.revision() >= *revision && held >= *n,
            "{key}: acknowledged {n}, has {held}"
        );
        assert!(stored.revision() <= store.revision(), "{key} is ahead of the store");
        // A task has one write under way, so at most one unacknowledged state may be there.
        assert!(held <= n + 1, "{key}: {held} was never written");
        let value: serde_json::Value = serde_json::from_str(&text(&stored)).expect("whole");
        assert_eq!(value["filler"], object(key, held)["filler"], "{key} is half there");
    }
    let newest = seen.values().map(|(revision, _)| *revision).max().unwrap_or(0);
    assert!(store.revision() >= newest, "the store's revision went back");
}

#[test]
fn what_was_acknowledged_survives_sigkill_at_random_points() {
    let folder = tempfile::tempdir().expect("folder");
    let mut seen = Acknowledged::new();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..6 {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        write_and_kill(folder.path(), 1 + (seed % 400) as usize, &mut seen);
        verify(folder.path(), &seen);
    }
}

mod damage;
