//! Values in another form where they are kept, in etcd and in the embedded engine: what cannot be read stays, is told,
//! and comes back with its key.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use store::{
    Collection, CollectionSpec, ENCRYPTED, EtcdOptions, Kept, LogEngine, Opened, Place, Stamp,
    Store, Transformer, WriteError,
};

use crate::etcd_server::EtcdServer;
use crate::harness::{delete, try_put};

const PREFIX: &str = "/registry/pods/";
const PATIENCE: Duration = Duration::from_secs(60);

/// Turns bytes over, with the place in front; reads only when its key was asked for and is there.
#[derive(Debug, Default)]
struct Turned {
    is_there: AtomicBool,
    was_asked: AtomicBool,
}

impl Turned {
    fn with_key() -> Arc<Turned> {
        Arc::new(Turned { is_there: true.into(), was_asked: true.into() })
    }
}

fn head(place: Place<'_>) -> Vec<u8> {
    format!("k8s:enc:turned:{}:", place.authenticated).into_bytes()
}

#[async_trait::async_trait]
impl Transformer for Turned {
    fn transform_to_storage(&self, place: Place<'_>, value: Vec<u8>) -> Result<Kept, String> {
        let bytes = [head(place), value.iter().map(|byte| !byte).collect()].concat();
        Ok(Kept { bytes, stamp: self.write_stamp(place.key) })
    }

    fn transform_from_storage(&self, place: Place<'_>, kept: Vec<u8>) -> Result<Opened, String> {
        if !kept.starts_with(ENCRYPTED) {
            return Ok(Opened { value: kept, stamp: None });
        }
        let body = kept.strip_prefix(head(place).as_slice()).ok_or("moved")?;
        if !(self.is_there.load(Ordering::Relaxed) && self.was_asked.load(Ordering::Relaxed)) {
            return Err("no key".into());
        }
        let value = body.iter().map(|byte| !byte).collect();
        Ok(Opened { value, stamp: self.write_stamp(place.key) })
    }

    async fn prepare(&self, _place: Place<'_>, _kept: &[u8]) {
        self.was_asked.store(true, Ordering::Relaxed);
    }

    fn write_stamp(&self, _key: &str) -> Option<Stamp> {
        Some("turned".into())
    }
}

fn spec() -> Vec<CollectionSpec> {
    vec![CollectionSpec { prefix: PREFIX.into(), selectable: &[], indexed: None }]
}

async fn connect(options: EtcdOptions, by: &Arc<Turned>) -> (Store, Arc<Collection>) {
    let transformer = Some(by.clone() as Arc<dyn Transformer>);
    let options = EtcdOptions { transformer, prefix: "/other".into(), ..options };
    let store = Store::connect(options, spec()).await.expect("connects");
    let pods = store.collection(PREFIX).expect("registered");
    (store, pods)
}

async fn put(store: &Store, pods: &Arc<Collection>, name: &str) -> Result<u64, WriteError> {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}});
    Ok(try_put(store, pods, &format!("default/{name}"), pod).await?.revision())
}

#[tokio::test]
async fn values_in_etcd_are_bound_to_their_place_there() {
    let server = EtcdServer::start();
    let (store, pods) = connect(server.options(), &Turned::with_key()).await;
    put(&store, &pods, "a").await.expect("written");
    assert!(!store.is_stale(&pods, "default/a"));
    let value = server.ctl(&["get", "/other/pods/default/a", "--print-value-only"]);
    assert!(value.starts_with(b"k8s:enc:turned:/other/pods/default/a:"), "{value:?}");
    // A key is fetched before it is needed.
    let by = Arc::new(Turned { is_there: true.into(), ..Turned::default() });
    let (other, seen) = connect(server.options(), &by).await;
    assert!(seen.get("default/a").is_some() && seen.unreadable("default/a").is_none());
    assert_eq!(other.stamps(), ["turned".into()]);
    // A plain value is readable, and stale.
    server.ctl(&[
        "put",
        "/other/pods/default/plain",
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"plain"}}"#,
    ]);
    other.catch_up().await.expect("reachable");
    assert!(seen.get("default/plain").is_some() && other.is_stale(&seen, "default/plain"));
}

#[tokio::test]
async fn what_cannot_be_read_in_etcd_comes_back_with_its_key() {
    let server = EtcdServer::start();
    let (store, pods) = connect(server.options(), &Turned::with_key()).await;
    put(&store, &pods, "before").await.expect("written");
    let by = Arc::new(Turned::default());
    let (blind, seen) = connect(server.options(), &by).await;
    let mut watcher = seen.watch(0).expect("from now on");
    put(&store, &pods, "after").await.expect("written");
    blind.catch_up().await.expect("reachable");
    for name in ["default/before", "default/after"] {
        assert_eq!(seen.unreadable(name).as_deref(), Some("no key"), "{name}");
        assert!(seen.get(name).is_none());
    }
    assert_eq!(
        seen.first_unreadable("default/").map(|(key, _)| key).as_deref(),
        Some("default/after")
    );
    assert_eq!(seen.first_unreadable("kube-system/"), None);
    match put(&blind, &seen, "before").await {
        Err(WriteError::Conflict(_)) => {}
        other => panic!("it is there, whatever it is: {other:?}"),
    }
    by.is_there.store(true, Ordering::Relaxed);
    blind.read_encrypted().await;
    for name in ["default/before", "default/after"] {
        assert!(seen.get(name).is_some() && seen.unreadable(name).is_none(), "{name}");
    }
    let told = tokio::time::timeout(PATIENCE, watcher.next()).await.expect("in time");
    told.expect_err("who watched has missed something");
    put(&blind, &seen, "before").await.expect("an update");
    delete(&blind, &seen, "default/after").await.expect("deleted");
    assert_eq!(blind.stamps().len(), 1);
}

#[tokio::test]
async fn what_cannot_be_read_in_the_log_is_kept_and_comes_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = |by: &Arc<Turned>| {
        let engine = LogEngine::open(folder.path()).expect("opens");
        let transformer = Some(by.clone() as Arc<dyn Transformer>);
        let store = Store::open_with(Box::new(engine), spec(), transformer).expect("loads");
        let pods = store.collection(PREFIX).expect("registered");
        (store, pods)
    };
    let (store, pods) = open(&Turned::with_key());
    let written = put(&store, &pods, "a").await.expect("written");
    store.close().await;
    drop((store, pods));
    let by = Arc::new(Turned::default());
    let (store, pods) = open(&by);
    assert_eq!(pods.unreadable("default/a").as_deref(), Some("no key"));
    match put(&store, &pods, "a").await {
        Err(WriteError::Conflict(None)) => {}
        other => panic!("expected a conflict, got {other:?}"),
    }
    match delete(&store, &pods, "default/a").await {
        Err(WriteError::Encryption(why)) => assert_eq!(why, "no key"),
        other => panic!("expected the reason, got {other:?}"),
    }
    put(&store, &pods, "b").await.expect("others can be written");
    by.is_there.store(true, Ordering::Relaxed);
    store.read_encrypted().await;
    assert_eq!(pods.get("default/a").map(|object| object.revision()), Some(written));
    store.close().await;
    drop((store, pods));
    let (_, pods) = open(&Turned::with_key());
    assert!(pods.get("default/a").is_some() && pods.get("default/b").is_some(), "nothing was lost");
}
