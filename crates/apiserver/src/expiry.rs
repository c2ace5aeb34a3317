//! Events are kept for a while only (`--event-ttl`): a busy cluster would drown in them.
//!
//! All live equally long from their last write on, so a queue in the order of writes is in the order
//! of expiry too. Nothing is scanned: each write costs one entry.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use api::Object;
use store::{Collection, Expect, Store, Write};
use tokio::time::Instant;

/// One state of one event, and when it goes unless it is written again.
struct Due {
    at: Instant,
    key: Arc<str>,
    revision: u64,
}

/// Deletes what has had its time, for ever.
pub(crate) async fn run(store: Store, events: Arc<Collection>, ttl: Duration) {
    loop {
        let Ok(page) = events.list("", None, 0, usize::MAX, &|_| true) else { continue };
        let Ok(mut watcher) = events.watch(page.revision) else { continue };
        let mut queue = restored(&page.objects, ttl);
        loop {
            let next = queue.front().map(|due| due.at);
            let found = tokio::select! {
                found = watcher.next() => found,
                () = sleep_until(next) => {
                    if let Some(due) = queue.pop_front() {
                        expire(&store, &events, due).await;
                    }
                    continue;
                }
            };
            // Fallen off the log: start over from the present state.
            let Ok(found) = found else { break };
            let at = Instant::now() + ttl;
            let written = found.into_iter().filter(|event| event.new.is_some());
            queue.extend(written.map(|e| Due { at, key: e.key, revision: e.revision }));
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What a restart finds: revisions are in the order of writes, ages are what the events say.
fn restored(objects: &[Arc<Object>], ttl: Duration) -> VecDeque<Due> {
    let (now, wall) = (Instant::now(), jiff::Timestamp::now());
    let mut all: Vec<&Arc<Object>> = objects.iter().collect();
    all.sort_by_key(|o| o.revision());
    let mut latest = now;
    let due = |object: &Arc<Object>| {
        let age = last_seen(object).map_or(0, |at| wall.duration_since(at).as_secs().max(0));
        let left = ttl.saturating_sub(Duration::from_secs(age.unsigned_abs()));
        // Never before its predecessor: the queue stays in order even where clocks did not.
        latest = latest.max(now + left);
        let meta = object.meta();
        let key = format!("{}/{}", meta.namespace, meta.name).into();
        Due { at: latest, key, revision: object.revision() }
    };
    all.into_iter().map(due).collect()
}

fn last_seen(object: &Object) -> Option<jiff::Timestamp> {
    let tree = object.to_value();
    let times = [
        &tree["series"]["lastObservedTime"],
        &tree["lastTimestamp"],
        &tree["deprecatedLastTimestamp"],
        &tree["eventTime"],
        &tree["metadata"]["creationTimestamp"],
    ];
    times.iter().find_map(|at| at.as_str()?.parse().ok())
}

async fn expire(store: &Store, events: &Arc<Collection>, due: Due) {
    if events.get(&due.key).is_none_or(|now| now.revision() != due.revision) {
        return;
    }
    let expect = Expect::Revision(due.revision);
    let write = Write { collection: events.clone(), key: due.key.to_string(), expect, draft: None };
    // Written or deleted by somebody else in the meantime: then it is no longer this one's turn.
    if let Err(error) = store.write(write).await {
        tracing::debug!(key = %due.key, %error, "an event was not expired");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use api::Draft;
    use serde_json::json;
    use store::{CollectionSpec, Expect, MemoryEngine, Store, Write};

    #[tokio::test(start_paused = true)]
    async fn events_go_when_nothing_wrote_them_for_their_time() {
        let spec =
            CollectionSpec { prefix: "/registry/events/".into(), selectable: &[], indexed: None };
        let store = Store::open(Box::new(MemoryEngine::default()), vec![spec]).expect("a store");
        let events = store.collection("/registry/events/").expect("registered");
        let write = async |name: &str, expect: Expect| {
            let now = jiff::Timestamp::now().to_string();
            let event =
                json!({"metadata": {"name": name, "namespace": "ns"}, "lastTimestamp": now});
            let draft = Some(Draft::new(&event, &[]));
            let key = format!("ns/{name}");
            let written = Write { collection: events.clone(), key, expect, draft };
            store.write(written).await.expect("a write").revision()
        };
        write("old", Expect::Absent).await;
        let again = write("again", Expect::Absent).await;
        let mut deletions = events.watch(events.revision()).expect("a watch");
        let ttl = Duration::from_secs(3600);
        let running = tokio::spawn(super::run(store.clone(), events.clone(), ttl));
        tokio::time::sleep(Duration::from_secs(1800)).await;
        write("again", Expect::Revision(again)).await;
        let mut gone = Vec::new();
        while gone.len() < 2 {
            for event in deletions.next().await.expect("the log is short") {
                if event.new.is_none() {
                    gone.push((event.key.to_string(), events.len()));
                }
            }
        }
        assert_eq!(gone, [("ns/old".to_owned(), 1), ("ns/again".to_owned(), 0)]);
        running.abort();
    }
}
