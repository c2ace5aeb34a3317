//! A full disk: refusals are clear and quick, nothing acknowledged is lost, deletions go on, and
//! writing resumes once there is space. On a small tmpfs in a mount namespace of the test's own,
//! which disappears with its process.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use store::{Collection, Store, WriteError};

use crate::harness::{alone, delete, number, open, put, try_put};

const FOLDER: &str = "STORE_FULL_FOLDER";
/// Three segments to begin with, two to grow into, the mark, and [`OTHERS`].
const DISK: &str = "size=64m";
/// Bytes on the disk that are not the store's, until they are removed.
const OTHERS: usize = 20 << 20;
/// Far longer than any of the steps takes: nothing may hang.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_full_disk_loses_nothing_and_is_left_again() {
    let folder = tempfile::tempdir().expect("folder");
    let program = std::env::current_exe().expect("own path");
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(program)
        .args(alone("full_disk::the_child"))
        .env(FOLDER, folder.path())
        .status();
    assert!(status.expect("unshare runs; it needs root").success());
}

/// What was acknowledged: number by key.
type Held = BTreeMap<String, u64>;

/// Creates objects of 20 KB until one is refused; the refusal.
async fn fill(store: &Store, pods: &Arc<Collection>, held: &mut Held) -> String {
    let filler = "x".repeat(20_000);
    for n in 0u64.. {
        let key = format!("filler-{n:05}");
        if held.contains_key(&key) {
            continue;
        }
        let value = json!({"metadata": {"name": key}, "n": n, "filler": filler});
        match try_put(store, pods, &key, value).await {
            Ok(_) => held.insert(key, n),
            Err(WriteError::Full(text)) => return text,
            Err(other) => panic!("{other}"),
        };
    }
    unreachable!("the disk has an end")
}

fn check(pods: &Collection, held: &Held) {
    assert_eq!(pods.len(), held.len());
    for (key, n) in held {
        let object = pods.get(key).unwrap_or_else(|| panic!("{key} is lost"));
        assert_eq!(number(&object), *n);
    }
}

/// Not a test by itself: runs in the mount namespace.
#[tokio::test]
async fn the_child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let mount =
        Command::new("mount").args(["-t", "tmpfs", "-o", DISK, "tmpfs"]).arg(folder).status();
    assert!(mount.expect("mount runs").success());
    tokio::time::timeout(PATIENCE, story(folder)).await.expect("nothing hangs");
}

async fn story(folder: &Path) {
    let (database, others) = (folder.join("db"), folder.join("others"));
    std::fs::write(&others, vec![1; OTHERS]).expect("there is space still");
    let (store, pods) = open(&database);
    let mut held = Held::new();
    let refusal = fill(&store, &pods, &mut held).await;
    assert!(refusal.contains("the store's disk is full: objects can be deleted"), "{refusal}");
    assert!(held.len() > 300, "only {} objects fit", held.len());
    check(&pods, &held);
    small_update(&store, &pods, &mut held).await;

    // Restarted while full, the store opens again and still deletes.
    store.close().await;
    let (store, pods) = open(&database);
    check(&pods, &held);
    for key in held.keys().take(600).cloned().collect::<Vec<_>>() {
        delete(&store, &pods, &key).await.unwrap_or_else(|e| panic!("delete {key}: {e}"));
        held.remove(&key);
    }
    let before = held.len();
    fill(&store, &pods, &mut held).await;
    assert!(held.len() >= before + 100, "{before} objects left, room for {} only", held.len());

    // Space that others give back is taken without a restart.
    let while_taken = held.len();
    std::fs::remove_file(others).expect("removed");
    fill(&store, &pods, &mut held).await;
    assert!(held.len() > while_taken + 100, "{while_taken}, then {}", held.len());

    // All of it can be deleted, one after the other; then there is space for as much again.
    while let Some((key, _)) = held.pop_first() {
        delete(&store, &pods, &key).await.unwrap_or_else(|e| panic!("delete {key}: {e}"));
    }
    fill(&store, &pods, &mut held).await;
    assert!(held.len() > while_taken, "{while_taken}, then {}", held.len());
    store.close().await;
    let (_, pods) = open(&database);
    check(&pods, &held);
}

/// A deletion begins with an update that hardly grows the object.
async fn small_update(store: &Store, pods: &Arc<Collection>, held: &mut Held) {
    let (key, n) = held.iter().next().map(|(k, n)| (k.clone(), *n)).expect("some");
    let meta = json!({"name": key, "deletionTimestamp": "2026-01-01T00:00:00Z"});
    let value = json!({"metadata": meta, "n": n});
    try_put(store, pods, &key, value).await.expect("an update that does not grow");
}

#[tokio::test]
async fn the_size_told_is_that_of_the_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, pods) = open(folder.path());
    for n in 0..200 {
        put(&store, &pods, &format!("ns/{n}"), n).await;
    }
    store.close().await;
    let files = std::fs::read_dir(folder.path()).expect("a folder");
    let sizes = files.map(|file| file.and_then(|file| file.metadata()).expect("a file").len());
    // Beside the segments there are the mark and the lock.
    assert_eq!(store.size(), Some(sizes.filter(|size| *size > 1 << 20).sum()));
}
