//! Encrypted objects as clients meet them: stale ones are rewritten, unreadable ones are told.

use std::sync::Arc;

use encryption::Encryption;
use serde_json::{Value, json};
use store::{Engine, EngineError, Record, Store, Transformer};
use tasks::Tasks;

use crate::harness::{Answer, Setup, World};

const OLD: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const NEW: &str = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";

/// A configuration for Secrets with these keys, each a name and a secret.
fn config(keys: &[(&str, &str)]) -> String {
    let keys: Vec<_> = keys.iter().map(|(n, s)| json!({"name": n, "secret": s})).collect();
    json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": [{"aesgcm": {"keys": keys}}]}],
    })
    .to_string()
}

async fn encryption(keys: &[(&str, &str)]) -> Arc<Encryption> {
    let made = Encryption::new(&config(keys), true, "server", &Tasks::new()).await;
    Arc::new(made.expect("a configuration"))
}

/// An engine with a state of its own, and the last value that was written to it.
struct Kept(Vec<Record>);

impl Engine for Kept {
    fn load(&mut self, visit: &mut dyn FnMut(Record)) -> Result<u64, EngineError> {
        let last = self.0.iter().map(|record| record.revision).max().unwrap_or(0);
        self.0.drain(..).for_each(visit);
        Ok(last)
    }

    fn commit(&mut self, _batch: &[Record]) -> Result<(), EngineError> {
        Ok(())
    }
}

fn store(transformer: &Arc<Encryption>, records: Vec<Record>) -> Store {
    let transformer = Some(transformer.clone() as Arc<dyn Transformer>);
    let opened = Store::open_with(Box::new(Kept(records)), apiserver::collections(), transformer);
    opened.expect("a store")
}

async fn reload(encryption: &Encryption, keys: &[(&str, &str)]) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("encryption.yaml");
    std::fs::write(&path, config(keys)).expect("a file");
    assert_eq!(encryption.reload(&path).await, Ok(true));
}

fn secret(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "default"},
        "type": "Opaque", "data": {"key": "dmFsdWU="},
    })
}

async fn get(world: &World, path: &str) -> Answer {
    world.ask("GET", path, &Value::Null).await
}

async fn post(world: &World, path: &str, object: &Value) -> Answer {
    world.ask("POST", path, object).await
}

async fn put(world: &World, path: &str, object: &Value) -> Answer {
    world.ask("PUT", path, object).await
}

async fn delete(world: &World, path: &str) -> Answer {
    world.ask("DELETE", path, &Value::Null).await
}

fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.bytes).into_owned()
}

const ALL: &str = "/api/v1/namespaces/default/secrets";

fn revision(answer: &Answer) -> String {
    answer.json()["metadata"]["resourceVersion"].as_str().expect("a version").to_owned()
}

#[tokio::test]
async fn an_unchanged_object_is_rewritten_only_when_its_stored_form_is_stale() {
    let encryption = encryption(&[("old", OLD)]).await;
    let store = store(&encryption, Vec::new());
    let world = World::with(Setup { store: Some(store.clone()), ..Setup::default() }).await;
    let made = post(&world, ALL, &secret("a")).await;
    assert_eq!(made.code, 201);
    let one = format!("{ALL}/a");
    let replaced = put(&world, &one, &made.json()).await;
    assert_eq!(revision(&replaced), revision(&made), "nothing changed, nothing is written");
    reload(&encryption, &[("new", NEW), ("old", OLD)]).await;
    let dry = put(&world, &format!("{one}?dryRun=All"), &made.json()).await;
    assert_eq!(revision(&dry), revision(&made));
    assert_eq!(store.stamps().len(), 1, "a dry run writes nothing");
    let rewritten = put(&world, &one, &made.json()).await;
    assert_eq!(rewritten.code, 200);
    assert_ne!(revision(&rewritten), revision(&made));
    let again = put(&world, &one, &rewritten.json()).await;
    assert_eq!(revision(&again), revision(&rewritten));
    assert!(store.stamps().iter().any(|stamp| stamp.contains(":new:")));
    // So does a patch that changes nothing, as the storage version migrator of upstream sends it.
    reload(&encryption, &[("third", OLD), ("new", NEW)]).await;
    let empty = json!({"metadata": {}});
    let patched = world.ask_by(&world.admin, ("PATCH", &one), &empty).await;
    assert_ne!(revision(&patched), revision(&again));
    let apply = json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "a", "uid": patched.json()["metadata"]["uid"]}});
    let applied = async || {
        let path = format!("{one}?fieldManager=migrator");
        let headers = [("content-type", "application/apply-patch+yaml")];
        world.ask_as(&world.admin, ("PATCH", &path), &headers, apply.to_string()).await
    };
    let first = applied().await;
    assert_eq!(first.code, 200, "{}", first.json());
    assert_eq!(revision(&applied().await), revision(&first), "nothing is stale");
    reload(&encryption, &[("fourth", NEW), ("third", OLD)]).await;
    assert_ne!(revision(&applied().await), revision(&first));
    // Other resources have no part in it.
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = post(&world, maps, &map).await;
    let same = put(&world, &format!("{maps}/m"), &map.json()).await;
    assert_eq!(revision(&same), revision(&map));
}

#[tokio::test]
async fn what_cannot_be_decrypted_is_told_and_comes_back_with_its_key() {
    let record = |by: &Encryption, name: &str, revision: u64| {
        let key = format!("/registry/secrets/default/{name}");
        let value = secret(name).to_string().into_bytes();
        let place = store::Place { key: &key, authenticated: &key };
        let kept = by.transform_to_storage(place, value).expect("encrypted");
        Record { key, value: Some(kept.bytes), revision }
    };
    let (with_old, with_new) =
        (encryption(&[("old", OLD)]).await, encryption(&[("new", NEW)]).await);
    let records = vec![record(&with_old, "lost", 10), record(&with_new, "fine", 11)];
    let store = store(&with_new, records);
    let world = World::with(Setup { store: Some(store.clone()), ..Setup::default() }).await;
    let why = "no matching key was found for the provided AES transformer";
    let internal = (500, format!("Internal error occurred: {why}"));
    assert_eq!(get(&world, &format!("{ALL}/lost")).await.told(), internal);
    assert_eq!(get(&world, &format!("{ALL}/fine")).await.code, 200);
    let listed = format!(
        "Internal error occurred: unable to transform key \"/registry/secrets/default/lost\": {why}"
    );
    for path in [ALL, "/api/v1/secrets", &format!("{ALL}?watch=1"), &format!("{ALL}?limit=1")] {
        assert_eq!(get(&world, path).await.told(), (500, listed.clone()), "{path}");
    }
    assert_eq!(get(&world, "/api/v1/namespaces/kube-system/secrets").await.code, 200);
    assert_eq!(put(&world, &format!("{ALL}/lost"), &secret("lost")).await.told(), internal);
    assert_eq!(delete(&world, &format!("{ALL}/lost")).await.told(), internal);
    assert_eq!(post(&world, ALL, &secret("lost")).await.code, 409, "it is there, readable or not");
    assert_eq!(post(&world, ALL, &secret("other")).await.code, 201);
    let mut watcher =
        store.collection("/registry/secrets/").expect("secrets").watch(0).expect("now");
    reload(&with_new, &[("new", NEW), ("old", OLD)]).await;
    store.read_encrypted().await;
    assert_eq!(get(&world, &format!("{ALL}/lost")).await.code, 200);
    assert_eq!(get(&world, ALL).await.json()["items"].as_array().map(Vec::len), Some(3));
    watcher.next().await.expect_err("a watcher that missed it is told so");
    assert_eq!(delete(&world, &format!("{ALL}/lost")).await.code, 200);
}

/// A transformer whose key is gone.
#[derive(Debug)]
struct NoKey;

#[async_trait::async_trait]
impl Transformer for NoKey {
    fn transform_to_storage(
        &self,
        place: store::Place<'_>,
        value: Vec<u8>,
    ) -> Result<store::Kept, String> {
        match place.key.starts_with("/registry/secrets/") {
            true => Err("the key expired".into()),
            false => Ok(store::Kept { bytes: value, stamp: None }),
        }
    }

    fn transform_from_storage(
        &self,
        _place: store::Place<'_>,
        kept: Vec<u8>,
    ) -> Result<store::Opened, String> {
        Ok(store::Opened { value: kept, stamp: None })
    }

    async fn prepare(&self, _place: store::Place<'_>, _kept: &[u8]) {}

    fn write_stamp(&self, _key: &str) -> Option<store::Stamp> {
        None
    }
}

#[tokio::test]
async fn a_value_that_cannot_be_encrypted_fails_alone() {
    let opened = Store::open_with(
        Box::new(Kept(Vec::new())),
        apiserver::collections(),
        Some(Arc::new(NoKey)),
    );
    let store = opened.expect("a store");
    let world = World::with(Setup { store: Some(store), ..Setup::default() }).await;
    let refused = (500, "Internal error occurred: the key expired".to_owned());
    assert_eq!(post(&world, ALL, &secret("a")).await.told(), refused);
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
    let made = post(&world, "/api/v1/namespaces/default/configmaps", &map).await;
    assert_eq!(made.code, 201, "the store goes on");
}

/// A check that fails.
struct Sick;

impl apiserver::HealthCheck for Sick {
    fn name(&self) -> &'static str {
        "kms-providers"
    }

    fn check(&self) -> std::pin::Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>> {
        Box::pin(async { Err("kms-provider-0: gone".into()) })
    }
}

#[tokio::test]
async fn kms_providers_are_part_of_health_and_readiness_but_not_of_life() {
    let world =
        World::with(Setup { health_checks: vec![Arc::new(Sick)], ..Setup::default() }).await;
    for (path, code) in [("/healthz", 500), ("/readyz", 500), ("/livez", 200)] {
        let answer = get(&world, path).await;
        assert_eq!(answer.code, code, "{path}");
        assert_eq!(text(&answer).contains("[-]kms-providers failed: reason withheld"), code == 500);
    }
    let alone = get(&world, "/healthz/kms-providers").await;
    assert_eq!(
        (alone.code, text(&alone).as_str()),
        (500, "internal server error: kms-provider-0: gone\n")
    );
    assert_eq!(get(&world, "/livez/kms-providers").await.code, 404);
    assert_eq!(get(&world, "/healthz?exclude=kms-providers").await.code, 200);
    let paths = text(&get(&world, "/").await);
    assert!(paths.contains("/readyz/kms-providers") && !paths.contains("/livez/kms-providers"));
}
