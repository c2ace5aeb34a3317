//! What the tests share: a store of pods in a folder, and test processes of their own.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use api::{Draft, Object};
use serde_json::json;
use store::{Collection, CollectionSpec, Expect, LogEngine, Store, Write, WriteError};

const PREFIX: &str = "/registry/pods/";

pub(crate) fn open(folder: &Path) -> (Store, Arc<Collection>) {
    let spec = CollectionSpec { prefix: PREFIX.into(), selectable: &[], indexed: None };
    let engine = LogEngine::open(folder).expect("opens");
    let store = Store::open(Box::new(engine), vec![spec]).expect("loads");
    let pods = store.collection(PREFIX).expect("registered");
    (store, pods)
}

pub(crate) async fn put(store: &Store, pods: &Arc<Collection>, key: &str, n: u64) -> Arc<Object> {
    try_put(store, pods, key, object(key, n)).await.expect("written")
}

pub(crate) async fn try_put(
    store: &Store,
    pods: &Arc<Collection>,
    key: &str,
    value: serde_json::Value,
) -> Result<Arc<Object>, WriteError> {
    let expect = pods.get(key).map_or(Expect::Absent, |o| Expect::Revision(o.revision()));
    let draft = Some(Draft::new(&value, &[]));
    let write = Write { collection: pods.clone(), key: key.into(), expect, draft };
    store.write(write).await
}

/// The filler follows from `n`, so that half an object would be seen.
pub(crate) fn object(key: &str, n: u64) -> serde_json::Value {
    let filler = n.to_string().repeat(300);
    json!({"metadata": {"name": key}, "n": n, "filler": filler})
}

pub(crate) fn number(object: &Object) -> u64 {
    let value: serde_json::Value = serde_json::from_str(&text(object)).expect("whole");
    value["n"].as_u64().expect("a number")
}

pub(crate) fn text(object: &Object) -> String {
    String::from_utf8(object.json().to_vec()).expect("UTF-8")
}

pub(crate) async fn delete(
    store: &Store,
    pods: &Arc<Collection>,
    key: &str,
) -> Result<Arc<Object>, WriteError> {
    let expect = Expect::Revision(pods.get(key).map_or(0, |o| o.revision()));
    store.write(Write { collection: pods.clone(), key: key.into(), expect, draft: None }).await
}

/// This program again, running one test only.
pub(crate) fn child(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command.args(alone(test));
    command
}

/// Arguments that run one test only.
pub(crate) fn alone(test: &str) -> [&str; 4] {
    ["--exact", test, "--nocapture", "--test-threads=1"]
}

/// Bytes of the files in a folder.
pub(crate) fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("readable");
    entries.map(|e| e.expect("entry").metadata().expect("there").len()).sum()
}
