//! The store on a real etcd: shared by two, lost and found again, compacted, read by upstream.

use std::io::{BufRead, BufReader, Write as _};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use store::{Collection, CollectionSpec, EtcdOptions, Store, WriteError};

use crate::etcd_server::EtcdServer;
use crate::harness::{delete, try_put};

const PREFIX: &str = "/registry/pods/";
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

async fn connect(options: EtcdOptions) -> (Store, Arc<Collection>) {
    let spec =
        CollectionSpec { prefix: PREFIX.into(), selectable: &["spec.nodeName"], indexed: None };
    let store = Store::connect(options, vec![spec]).await.expect("connects");
    let pods = store.collection(PREFIX).expect("registered");
    (store, pods)
}

fn pod(name: &str, image: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": image}], "nodeName": "n1"},
    })
}

async fn put(store: &Store, pods: &Arc<Collection>, name: &str, image: &str) -> u64 {
    let written = try_put(store, pods, &format!("default/{name}"), pod(name, image)).await;
    written.expect("written").revision()
}

fn image(pods: &Collection, name: &str) -> Option<String> {
    let object = pods.get(&format!("default/{name}"))?;
    object.to_value()["spec"]["containers"][0]["image"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn two_stores_on_one_etcd_see_each_other() {
    let server = EtcdServer::start();
    let (one, pods) = connect(server.options()).await;
    let (two, seen) = connect(server.options()).await;
    let start = two.revision();
    let mut watcher = seen.watch(start).expect("from now on");
    let created = put(&one, &pods, "a", "v1").await;
    assert_eq!(image(&pods, "a").as_deref(), Some("v1"), "a writer reads its own write");
    assert_eq!(pods.revision(), created);
    two.catch_up().await.expect("reachable");
    assert_eq!(image(&seen, "a").as_deref(), Some("v1"), "and so does everyone who asked to");

    let updated = put(&two, &seen, "a", "v2").await;
    let stale = try_put(&one, &pods, "default/b", pod("b", "v1")).await.expect("absent");
    one.catch_up().await.expect("reachable");
    assert_eq!(image(&pods, "a").as_deref(), Some("v2"));
    let expect = store::Expect::Revision(created);
    let draft = Some(api::Draft::new(&pod("a", "v3"), &[]));
    let write = store::Write { collection: pods.clone(), key: "default/a".into(), expect, draft };
    match one.write(write).await {
        Err(WriteError::Conflict(Some(now))) => assert_eq!(now.revision(), updated),
        other => panic!("expected a conflict, got {other:?}"),
    }
    let deleted = delete(&one, &pods, "default/a").await.expect("deleted").revision();
    two.catch_up().await.expect("reachable");
    assert!(seen.get("default/a").is_none());

    let mut events = Vec::new();
    while events.last() != Some(&deleted) {
        let next = tokio::time::timeout(PATIENCE, watcher.next()).await.expect("in time");
        events.extend(next.expect("in the log").iter().map(|e| e.revision));
    }
    assert_eq!(events, [created, updated, stale.revision(), deleted]);
}

#[tokio::test]
async fn keys_and_values_are_the_originals() {
    let server = EtcdServer::start();
    let (store, pods) = connect(server.options()).await;
    put(&store, &pods, "a", "v1").await;
    let keys = server.ctl(&["get", "--prefix", "", "--keys-only"]);
    assert_eq!(String::from_utf8_lossy(&keys).trim(), "/registry/pods/default/a");
    let value = server.ctl(&["get", "/registry/pods/default/a", "--print-value-only"]);
    assert!(value.starts_with(b"k8s\0\n\t\n\x02v1\x12\x03Pod"), "{value:?}");

    // A pod as upstream writes it: an envelope, and in it metadata (1) with a name (1) and a
    // namespace (3), and a spec (2) with one container (2) of a name (1) and an image (2).
    let meta = b"\x0a\x0e\x0a\x01b\x1a\x07default\x42\x00";
    let spec = b"\x12\x0a\x12\x08\x0a\x01c\x12\x03old";
    let message = [meta.as_slice(), spec].concat();
    let envelope = [
        b"k8s\0\n\t\n\x02v1\x12\x03Pod\x12".as_slice(),
        &[message.len() as u8],
        &message,
        b"\x1a\x00\x22\x00",
    ];
    let mut ctl = server.ctl_command(&server.url(), &["put", "/registry/pods/default/b"]);
    let mut child = ctl.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("runs");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(&envelope.concat()).expect("taken");
    drop(stdin);
    assert!(child.wait().expect("ends").success());
    store.catch_up().await.expect("reachable");
    assert_eq!(image(&pods, "b").as_deref(), Some("old"));
    put(&store, &pods, "b", "new").await;

    // JSON is read as well, and a collection registered later gets what is there.
    let thing = r#"{"apiVersion":"example.com/v1","kind":"Thing","metadata":{"name":"t"}}"#;
    server.ctl(&["put", "/registry/example.com/things/t", thing]);
    store.catch_up().await.expect("reachable");
    let prefix = "/registry/example.com/things/".to_owned();
    let things = store
        .register(CollectionSpec { prefix, selectable: &[], indexed: None })
        .expect("readable");
    assert_eq!(things.get("t").map(|o| o.meta().name.to_string()).as_deref(), Some("t"));
    store.close().await;
    let (_again, pods) = connect(server.options()).await;
    assert_eq!(image(&pods, "b").as_deref(), Some("new"));
}

#[tokio::test]
async fn a_prefix_keeps_clusters_apart() {
    let server = EtcdServer::start();
    let (one, pods) = connect(server.options()).await;
    let (two, others) = connect(EtcdOptions { prefix: "other/".into(), ..server.options() }).await;
    put(&one, &pods, "a", "v1").await;
    put(&two, &others, "b", "v1").await;
    // The other's write moved etcd's revision; catching up does not wait for it in vain.
    one.catch_up().await.expect("reachable");
    assert_eq!((pods.len(), others.len()), (1, 1));
    let keys = server.ctl(&["get", "/other/", "--prefix", "--keys-only"]);
    assert_eq!(String::from_utf8_lossy(&keys).trim(), "/other/pods/default/b");
}

#[tokio::test]
async fn etcd_may_go_and_come_back() {
    let mut server = EtcdServer::start();
    let (store, pods) = connect(server.options()).await;
    let mut watcher = pods.watch(put(&store, &pods, "a", "v1").await).expect("from now on");
    server.kill();
    let refused =
        tokio::time::timeout(PATIENCE, try_put(&store, &pods, "default/b", pod("b", "x")));
    match refused.await.expect("answered in time") {
        Err(WriteError::Unavailable(text) | WriteError::Unknown(text)) => {
            assert!(text.contains("etcd"), "{text}");
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
    assert!(store.catch_up().await.is_err(), "fresh reads are refused");
    assert_eq!(image(&pods, "a").as_deref(), Some("v1"), "the cache goes on");

    server.restart(false);
    let back = async {
        loop {
            match try_put(&store, &pods, "default/c", pod("c", "v1")).await {
                Ok(written) => return written.revision(),
                Err(WriteError::Unavailable(_) | WriteError::Unknown(_)) => {
                    store.catch_up().await.unwrap_or_default();
                }
                Err(WriteError::Conflict(Some(now))) => return now.revision(),
                Err(other) => panic!("{other}"),
            }
        }
    };
    let written = tokio::time::timeout(PATIENCE, back).await.expect("writes work again");
    let mut last = 0;
    while last < written {
        let events = tokio::time::timeout(PATIENCE, watcher.next()).await.expect("in time");
        last = events.expect("the watch went on").last().map_or(0, |e| e.revision);
    }
}

#[tokio::test]
async fn history_that_was_compacted_meanwhile_is_read_anew() {
    let mut server = EtcdServer::start();
    let (store, pods) = connect(server.options()).await;
    let mut watcher = pods.watch(put(&store, &pods, "a", "v1").await).expect("from now on");
    put(&store, &pods, "b", "v1").await;
    assert_eq!(watcher.ready().expect("in the log").len(), 1);
    server.kill();
    server.restart(true);
    // The store does not know this port: all of it happens behind its back.
    let hidden = server.hidden_url();
    server.ctl_at(&hidden, &["del", "/registry/pods/default/a"]);
    for n in 0..5 {
        let value = pod("d", &format!("v{n}")).to_string();
        server.ctl_at(&hidden, &["put", "/registry/pods/default/d", &value]);
    }
    let status = server.ctl_at(&hidden, &["endpoint", "status", "-w", "json"]);
    let status: serde_json::Value = serde_json::from_slice(&status).expect("JSON");
    let revision = status[0]["Status"]["header"]["revision"].as_u64().expect("a revision");
    server.ctl_at(&hidden, &["compact", &revision.to_string()]);
    server.kill();
    server.restart(false);
    let told = tokio::time::timeout(PATIENCE, async {
        loop {
            if watcher.next().await.is_err() {
                return;
            }
        }
    });
    told.await.expect("the watcher learns of the gap");
    assert_eq!(image(&pods, "a"), None);
    assert_eq!(image(&pods, "b").as_deref(), Some("v1"));
    assert_eq!(image(&pods, "d").as_deref(), Some("v4"));
    assert_eq!(store.revision(), revision);
    put(&store, &pods, "e", "v1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_compacted_by_one_of_two() {
    let server = EtcdServer::start();
    let options =
        EtcdOptions { compaction_interval: Duration::from_millis(400), ..server.options() };
    let (one, pods) = connect(options.clone()).await;
    let (_two, _) = connect(options).await;
    let first = put(&one, &pods, "a", "v1").await;
    put(&one, &pods, "a", "v2").await;
    let mut watch = server.ctl_command(&server.url(), &["watch", "compact_rev_key", "--rev=1"]);
    let mut watch = watch.stdout(Stdio::piped()).spawn().expect("runs");
    let lines = BufReader::new(watch.stdout.take().expect("piped")).lines();
    // Until a revision above the first write's was noted: it is compacted right after.
    let noted = |line: &str| line.parse::<u64>().is_ok_and(|revision| revision > first);
    let mut lines = lines.map_while(Result::ok);
    assert!(lines.by_ref().any(|line| noted(&line)), "nothing was compacted");
    assert!(lines.any(|line| noted(&line)), "only once");
    watch.kill().expect("killed");
    watch.wait().expect("reaped");
    let mut old = server.ctl_command(
        &server.url(),
        &["get", "/registry/pods/default/a", &format!("--rev={first}")],
    );
    let output = old.output().expect("runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("required revision has been compacted"), "{errors}");
    assert_eq!(image(&pods, "a").as_deref(), Some("v2"));
}

#[tokio::test]
async fn wrong_flags_say_what_is_wrong() {
    let server = EtcdServer::start();
    let refused = |options: EtcdOptions| async {
        Store::connect(options, Vec::new()).await.expect_err("is refused").to_string()
    };
    let options = EtcdOptions { ca_file: None, ..server.options() };
    assert!(refused(options).await.contains("needs --etcd-cafile"));
    let options = EtcdOptions { servers: vec!["localhost".into()], ..server.options() };
    assert!(refused(options).await.contains("no URL like https://host:2379"));
    let options = EtcdOptions { key_file: None, ..server.options() };
    assert!(refused(options).await.contains("go together"));
    let options = EtcdOptions { ca_file: Some("/nonexistent".into()), ..server.options() };
    assert!(refused(options).await.contains("/nonexistent"));
}

#[tokio::test]
async fn an_unreadable_object_is_named_and_never_shown_as_gone() {
    let server = EtcdServer::start();
    let (store, pods) = connect(server.options()).await;
    let readable = put(&store, &pods, "a", "v1").await;
    server.ctl(&["put", "/registry/pods/default/a", "k8s:enc:aescbc:v1:key1:secret"]);
    store.catch_up().await.expect("reachable");
    assert_eq!(image(&pods, "a").as_deref(), Some("v1"));
    let expect = store::Expect::Revision(readable);
    let write = store::Write { collection: pods, key: "default/a".into(), expect, draft: None };
    assert!(matches!(store.write(write).await, Err(WriteError::Conflict(None))));
    // A server that starts now has no former state to show, and says why.
    let (_, seen) = connect(server.options()).await;
    assert!(seen.get("default/a").is_none());
    let why = "identity transformer tried to read encrypted data";
    assert_eq!(seen.unreadable("default/a").as_deref(), Some(why));
    // What no key will ever make readable keeps it from starting.
    server.ctl(&["put", "/registry/pods/default/b", "{"]);
    let spec = CollectionSpec { prefix: PREFIX.into(), selectable: &[], indexed: None };
    let refused = Store::connect(server.options(), vec![spec]).await.expect_err("is refused");
    let text = refused.to_string();
    assert!(text.contains("/registry/pods/default/b cannot be read: "), "{text}");
}

#[tokio::test]
async fn what_has_a_lifetime_goes_by_itself_and_watchers_are_told() {
    let server = EtcdServer::start();
    let (store, pods) = connect(server.options()).await;
    let write_for = async |name: &str, expect, seconds| {
        let draft = Some(api::Draft::new(&pod(name, "v1"), &[]));
        let key = format!("default/{name}");
        let write = store::Write { collection: pods.clone(), key, expect, draft };
        let written = store.write_for(write, Duration::from_secs(seconds)).await;
        written.expect("written").revision()
    };
    let leases = || {
        let list = String::from_utf8(server.ctl(&["lease", "list"])).expect("text");
        list.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    for name in ["a", "b", "c"] {
        write_for(name, store::Expect::Absent, 3600).await;
    }
    let shared = leases();
    assert_eq!(shared.len(), 1, "one lease for all that is written at a time: {shared:?}");
    // A lease that somebody revoked takes its keys with it, and is not used again.
    let mut watcher = pods.watch(pods.revision()).expect("from now on");
    server.ctl(&["lease", "revoke", &shared[0]]);
    let revision = write_for("d", store::Expect::Absent, 3600).await;
    let mut gone = Vec::new();
    while gone.len() < 3 {
        let events = tokio::time::timeout(PATIENCE, watcher.next()).await.expect("in time");
        let events = events.expect("in the log");
        gone.extend(events.iter().filter(|e| e.new.is_none()).map(|e| e.key.to_string()));
    }
    gone.sort();
    assert_eq!(gone, ["default/a", "default/b", "default/c"]);
    // A write without a lifetime ends the former one.
    let kept = try_put(&store, &pods, "default/d", pod("d", "v2")).await.expect("written");
    assert!(kept.revision() > revision);
    server.ctl(&["lease", "revoke", &leases()[0]]);
    store.catch_up().await.expect("reachable");
    assert_eq!(image(&pods, "d").as_deref(), Some("v2"));
    // And one that nobody revokes runs out.
    write_for("e", store::Expect::Absent, 1).await;
    let expired = async {
        while !watcher.next().await.expect("in the log").iter().any(|e| e.new.is_none()) {}
    };
    tokio::time::timeout(PATIENCE, expired).await.expect("it goes");
    assert!(pods.get("default/e").is_none() && pods.get("default/d").is_some());
}
