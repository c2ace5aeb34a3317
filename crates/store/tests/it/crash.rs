//! Killed at random points under load: every acknowledged write is there again.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::Stdio;

use crate::harness::{child, number, object, open, put, text};

/// Names the child's folder, and makes `the_writing_child` write instead of pass.
const FOLDER: &str = "STORE_CRASH_FOLDER";
/// Tasks that write at once, each on keys of its own.
const TASKS: u64 = 8;
const KEYS: u64 = 4;

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

/// Last acknowledged revision and number of each key.
type Acknowledged = BTreeMap<String, (u64, u64)>;

/// Lets a child write until `count` acknowledgements, kills it, and adds all it acknowledged.
fn write_and_kill(folder: &Path, count: usize, seen: &mut Acknowledged) {
    let mut child = child("crash::the_writing_child")
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
