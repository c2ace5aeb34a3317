//! The store against a plain map, watches, pages at a revision, and reopening.

use std::collections::BTreeMap;

use serde_json::json;

use std::sync::Arc;

use api::{Draft, Object};

use crate::{
    Collection, CollectionSpec, Engine, EngineError, Expect, LogEngine, MemoryEngine, Page, Record,
    Store, Write, WriteError,
};

const PREFIX: &str = "/registry/pods/";

fn spec() -> CollectionSpec {
    CollectionSpec {
        prefix: PREFIX.into(),
        selectable: &["spec.nodeName"],
        indexed: Some("spec.nodeName"),
    }
}

fn memory() -> (Store, Arc<Collection>) {
    let store = Store::open(Box::<MemoryEngine>::default(), vec![spec()]).expect("opens");
    let pods = store.collection(PREFIX).expect("registered");
    (store, pods)
}

async fn put(
    store: &Store,
    pods: &Arc<Collection>,
    key: &str,
    n: u64,
) -> Result<Arc<Object>, WriteError> {
    let expect = pods.get(key).map_or(Expect::Absent, |o| Expect::Revision(o.revision()));
    let draft = Draft::new(&json!({"metadata": {"name": key}, "n": n}), pods.spec().selectable);
    store
        .write(Write { collection: pods.clone(), key: key.into(), expect, draft: Some(draft) })
        .await
}

async fn delete(
    store: &Store,
    pods: &Arc<Collection>,
    key: &str,
) -> Result<Arc<Object>, WriteError> {
    let expect = Expect::Revision(pods.get(key).map_or(0, |o| o.revision()));
    store.write(Write { collection: pods.clone(), key: key.into(), expect, draft: None }).await
}

fn names(page: &Page) -> Vec<&str> {
    page.objects.iter().map(|o| o.meta().name.as_ref()).collect()
}

#[tokio::test]
async fn a_watch_delivers_exactly_the_events_after_its_revision() {
    let (store, pods) = memory();
    let first = put(&store, &pods, "a", 1).await.expect("written");
    put(&store, &pods, "a", 2).await.expect("written");
    delete(&store, &pods, "a").await.expect("deleted");
    let mut watcher = pods.watch(first.revision()).expect("in the log");
    let events = watcher.next().await.expect("there");
    assert_eq!(events.len(), 2);
    assert!(events[0].new.is_some() && events[1].new.is_none());
    assert_eq!(events[1].old.as_ref().map(|o| o.revision()), Some(first.revision() + 1));
    assert_eq!(watcher.progress(), store.revision());
}

#[tokio::test]
async fn forgotten_history_cannot_be_listed_and_disturbs_no_watcher() {
    let (store, pods) = memory();
    let first = put(&store, &pods, "a", 1).await.expect("written").revision();
    put(&store, &pods, "b", 1).await.expect("written");
    let now = store.revision();
    let mut late = pods.watch(first).expect("in the log");
    let mut current = pods.watch(now).expect("in the log");
    let list = |at| pods.list("", None, at, usize::MAX, &|_| true).map(|page| page.objects.len());

    store.forget_before(now);
    assert_eq!(list(0), Ok(2));
    assert_eq!(list(now), Ok(2));
    assert_eq!(list(first), Err(crate::Expired { asked: first, oldest: now }));
    assert!(late.next().await.is_err(), "it has missed an event");
    let third = put(&store, &pods, "c", 1).await.expect("written").revision();
    let events = current.next().await.expect("it had seen everything");
    assert_eq!(events.iter().map(|e| e.revision).collect::<Vec<_>>(), [third]);
    assert_eq!(list(now), Ok(2), "what came later is kept");
}

#[tokio::test]
async fn pages_show_one_revision() {
    let (store, pods) = memory();
    for key in ["a", "b", "c", "d"] {
        put(&store, &pods, key, 1).await.expect("written");
    }
    let first = pods.list("", None, 0, 2, &|_| true).expect("now");
    assert_eq!((names(&first), first.remaining), (vec!["a", "b"], 2));
    delete(&store, &pods, "c").await.expect("deleted");
    put(&store, &pods, "e", 1).await.expect("written");
    let second =
        pods.list("", first.last_key.as_deref(), first.revision, 2, &|_| true).expect("logged");
    assert_eq!((names(&second), second.remaining), (vec!["c", "d"], 0));
}

#[tokio::test]
async fn every_page_of_a_namespace_says_how_much_is_behind_it() {
    let is_odd = |object: &Object| !object.meta().name.ends_with(['2', '4', '6']);
    assert_eq!(behind(2, &|_| true).await, [4, 2, 0]);
    assert_eq!(behind(4, &|_| true).await, [2, 0]);
    assert_eq!(behind(1, &is_odd).await, [5, 3, 1, 0]);
}

/// What each page of namespace `b` says is behind it, while others write.
async fn behind(limit: usize, keep: &(dyn Fn(&Object) -> bool + Sync)) -> Vec<usize> {
    let (store, pods) = memory();
    for key in ["a/1", "b/1", "b/2", "b/3", "b/4", "b/5", "b/6", "c/1", "d"] {
        put(&store, &pods, key, 1).await.expect("written");
    }
    let (mut said, mut at, mut after) = (Vec::new(), 0, None::<Arc<str>>);
    loop {
        let page = pods.list("b/", after.as_deref(), at, limit, keep).expect("logged");
        said.push(page.remaining);
        (at, after) = (page.revision, page.last_key);
        if after.is_none() {
            return said;
        }
        let now = pods.get("b/7").map_or(0, |there| there.revision());
        match now {
            0 => put(&store, &pods, "b/7", 1).await.map(|_| ()).expect("written"),
            _ => delete(&store, &pods, "b/7").await.map(|_| ()).expect("deleted"),
        }
    }
}

#[tokio::test]
async fn objects_are_found_by_the_indexed_field_now_and_as_they_were() {
    let (store, pods) = memory();
    let place = async |key: &str, node: &str| {
        let expect = pods.get(key).map_or(Expect::Absent, |o| Expect::Revision(o.revision()));
        let tree = json!({"metadata": {"name": key}, "spec": {"nodeName": node}});
        let draft = Some(Draft::new(&tree, pods.spec().selectable));
        let write = Write { collection: pods.clone(), key: key.into(), expect, draft };
        store.write(write).await.expect("written").revision()
    };
    for key in ["a", "b", "c", "d"] {
        place(key, "n1").await;
    }
    place("b", "n2").await;
    let by = |node: &'static str, after, at, limit| {
        let has = move |o: &Object| *o.meta().fields[0] == *node;
        let page = pods.list_by(Some(("spec.nodeName", node)), ("", after), at, limit, &has);
        page.expect("logged")
    };
    let first = by("n1", None, 0, 2);
    assert_eq!((names(&first), first.remaining), (vec!["a", "c"], 1));
    place("d", "n2").await;
    let rest = by("n1", first.last_key.as_deref(), first.revision, 2);
    assert_eq!(names(&rest), ["d"], "as it was");
    assert_eq!(names(&by("n1", None, 0, 9)), ["a", "c"]);
    assert_eq!(names(&by("n2", None, 0, 2)), ["b", "d"]);
    assert!(by("n2", None, 0, 2).last_key.is_none(), "there are no more");
    let other = pods.list_by(Some(("status.phase", "x")), ("", None), 0, 9, &|_| true);
    assert_eq!(names(&other.expect("now")).len(), 4, "a field without an index: all are looked at");
}

#[tokio::test]
async fn a_stale_write_gets_the_present_state() {
    let (store, pods) = memory();
    let first = put(&store, &pods, "a", 1).await.expect("written");
    let second = put(&store, &pods, "a", 2).await.expect("written");
    let draft = Draft::new(&json!({"metadata": {}}), &[]);
    let write = Write {
        collection: pods,
        key: "a".into(),
        expect: Expect::Revision(first.revision()),
        draft: Some(draft),
    };
    match store.write(write).await {
        Err(WriteError::Conflict(Some(now))) => assert_eq!(now.revision(), second.revision()),
        other => panic!("expected a conflict, got {other:?}"),
    }
}

#[tokio::test]
async fn falling_off_the_log_is_told() {
    let (store, pods) = memory();
    let first = put(&store, &pods, "a", 0).await.expect("written");
    let big = "x".repeat(1 << 20);
    for n in 0..100u64 {
        let expect = pods.get("big").map_or(Expect::Absent, |o| Expect::Revision(o.revision()));
        let draft = Draft::new(&json!({"metadata": {"name": "big"}, "n": n, "x": big}), &[]);
        let write =
            Write { collection: pods.clone(), key: "big".into(), expect, draft: Some(draft) };
        store.write(write).await.expect("written");
    }
    assert!(pods.watch(first.revision()).is_err());
    assert!(pods.list("", None, first.revision(), 10, &|_| true).is_err());
}

/// A seeded walk over a few keys, mirrored in a map; the reopened store equals the mirror.
#[tokio::test]
async fn what_was_acknowledged_is_there_after_reopening() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut mirror = BTreeMap::new();
    let mut last = 0;
    for round in 0..3u64 {
        let engine = LogEngine::open(folder.path()).expect("opens");
        let store = Store::open(Box::new(engine), vec![spec()]).expect("loads");
        let pods = store.collection(PREFIX).expect("registered");
        let seen: BTreeMap<String, u64> = pods
            .list("", None, 0, usize::MAX, &|_| true)
            .expect("now")
            .objects
            .iter()
            .map(|o| (o.meta().name.to_string(), o.to_value()["n"].as_u64().expect("n")))
            .collect();
        assert_eq!(seen, mirror, "after reopening in round {round}");
        assert!(store.revision() >= last);
        for step in 0..200u64 {
            let mixed = (round * 1000 + step).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
            let key = format!("k{}", mixed % 17);
            if mixed % 5 == 0 && mirror.contains_key(&key) {
                delete(&store, &pods, &key).await.expect("deleted");
                mirror.remove(&key);
            } else {
                put(&store, &pods, &key, step).await.expect("written");
                mirror.insert(key, step);
            }
        }
        last = store.revision();
        store.close().await;
    }
}

/// An engine of many records that are no objects.
struct Nonsense;

impl Engine for Nonsense {
    fn load(&mut self, visit: &mut dyn FnMut(Record)) -> Result<u64, EngineError> {
        for revision in 1..=10_000 {
            let key = format!("{PREFIX}{revision}");
            visit(Record { key, value: Some(b"nonsense".to_vec()), revision });
        }
        Ok(10_000)
    }

    fn commit(&mut self, _batch: &[Record]) -> Result<(), EngineError> {
        Ok(())
    }
}

#[test]
fn a_record_that_is_no_object_is_named() {
    let error = Store::open(Box::new(Nonsense), vec![spec()]).expect_err("is refused");
    assert!(error.to_string().contains("stored object /registry/pods/"), "{error}");
}
