//! Keeps the collections equal to etcd: one read of everything, then one watch, resumed where it
//! broke off.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use api::Object;

use super::Link;
use super::grpc::CallError;
use super::wire::{WatchEvent, WatchResponse};
use crate::collection::{Collection, Event};
use crate::encrypted::Unreadable;
use crate::engine::{EngineError, Record};
use crate::shelf::find;

/// Pauses between tries to reach etcd again.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long a start waits for an etcd that starts at the same time.
const PATIENCE: Duration = Duration::from_secs(20);
/// A deletion among the events.
const DELETE: i32 = 1;

/// Why following ended.
enum Broken {
    Call(CallError),
    /// What came after the last seen revision is gone, or belongs to another history.
    Gap,
}

impl From<CallError> for Broken {
    fn from(error: CallError) -> Broken {
        Broken::Call(error)
    }
}

impl Link {
    /// Everything below the prefix, and its revision.
    async fn read(&self) -> Result<(Vec<Record>, u64), CallError> {
        let mut records = Vec::new();
        let prefix = format!("{}/", self.prefix);
        let mut visit = |kv| records.extend(self.record(kv));
        let revision = self.channel.read_all(&prefix, &mut visit).await?;
        for record in &records {
            self.shelf.prepare(record).await;
        }
        Ok((records, revision))
    }

    pub(super) async fn read_patiently(&self) -> Result<(Vec<Record>, u64), CallError> {
        let until = tokio::time::Instant::now() + PATIENCE;
        let mut pause = PAUSE_MIN;
        loop {
            match self.read().await {
                Err(CallError::Unreachable(why)) if tokio::time::Instant::now() < until => {
                    tracing::warn!(%why, "waiting for etcd");
                }
                other => return other,
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Follows for ever.
    pub(super) async fn mirror(self: Arc<Self>) {
        let mut pause = PAUSE_MIN;
        loop {
            let before = *self.seen.borrow();
            match self.watch().await {
                Broken::Call(error) => tracing::warn!(%error, "etcd is followed again soon"),
                Broken::Gap => match self.replace_all().await {
                    Ok(revision) => tracing::warn!(revision, "history was lost: read anew"),
                    Err(error) => tracing::warn!(%error, "etcd is read again soon"),
                },
            }
            pause =
                if *self.seen.borrow() > before { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
            tokio::time::sleep(pause).await;
        }
    }

    /// Brings every change into the collections until the watch breaks.
    async fn watch(&self) -> Broken {
        match self.try_watch().await {
            Ok(never) => match never {},
            Err(broken) => broken,
        }
    }

    async fn try_watch(&self) -> Result<std::convert::Infallible, Broken> {
        let seen = *self.seen.borrow();
        // A watch from a revision to come would wait in silence after etcd was set back.
        if self.channel.revision(&self.prefix).await? < seen {
            return Err(Broken::Gap);
        }
        let mut answers = self.channel.watch(&format!("{}/", self.prefix), seen).await?;
        loop {
            let answer: WatchResponse = match answers.next().await? {
                Some(answer) => answer,
                None => return Err(CallError::Lost("the watch ended".into()).into()),
            };
            if answer.compact_revision > 0 {
                return Err(Broken::Gap);
            }
            if answer.canceled {
                return Err(CallError::Lost(answer.cancel_reason).into());
            }
            let changes: Vec<(Record, bool)> =
                answer.events.into_iter().filter_map(|event| self.change(event)).collect();
            for (record, _) in changes.iter().filter(|(_, deleted)| !deleted) {
                self.shelf.prepare(record).await;
            }
            self.apply(changes);
        }
    }

    /// A change as the collections name it, and whether it is a deletion.
    fn change(&self, event: WatchEvent) -> Option<(Record, bool)> {
        Some((self.record(event.kv?)?, event.kind == DELETE))
    }

    /// Publishes one answer's changes together.
    fn apply(&self, changes: Vec<(Record, bool)>) {
        // Held until all is published: a collection that is added meanwhile misses nothing.
        let collections = self.shelf.collections();
        let mut batches: Vec<(Arc<Collection>, Vec<Event>)> = Vec::new();
        let mut decided: HashMap<String, Option<Arc<Object>>> = HashMap::new();
        let mut last = 0;
        for (record, deleted) in changes {
            last = last.max(record.revision);
            match find(&collections, &record.key) {
                None if deleted => drop(self.shelf.unclaimed().remove(&record.key)),
                None => drop(self.shelf.unclaimed().insert(record.key.clone(), record)),
                Some(collection) => {
                    let Some(event) = self.event(collection, &record, deleted, &mut decided) else {
                        continue;
                    };
                    match batches.iter_mut().find(|(c, _)| Arc::ptr_eq(c, collection)) {
                        Some((_, events)) => events.push(event),
                        None => batches.push((collection.clone(), vec![event])),
                    }
                }
            }
        }
        if last == 0 {
            return;
        }
        batches.sort_by_key(|(c, _)| Arc::as_ptr(c) as usize);
        Collection::publish(&batches, last);
        self.shelf.current.store(last, Ordering::Release);
        drop(collections);
        self.seen.send_replace(last);
    }

    /// One change of a collection; absent when there is nothing to tell.
    fn event(
        &self,
        collection: &Arc<Collection>,
        record: &Record,
        deleted: bool,
        decided: &mut HashMap<String, Option<Arc<Object>>>,
    ) -> Option<Event> {
        let key: Arc<str> = record.key[collection.spec().prefix.len()..].into();
        let old = match decided.get(&record.key) {
            Some(decided) => decided.clone(),
            None => collection.get(&key),
        };
        let new = match deleted {
            true => {
                collection.encrypted.deleted(&key);
                None
            }
            // Unreadable, its last readable state stays: shown as gone, what depends on it would be collected as
            // garbage. A write to it is refused, since its revision is old.
            false => Some(self.read_into(collection, &key, record)?),
        };
        decided.insert(record.key.clone(), new.clone());
        if old.is_none() && new.is_none() {
            return None;
        }
        Some(Event { revision: record.revision, key, old, new })
    }

    /// The object of a record, noted in its collection's book; absent when it cannot be read.
    fn read_into(
        &self,
        collection: &Collection,
        key: &str,
        record: &Record,
    ) -> Option<Arc<Object>> {
        match self.shelf.object(collection, record) {
            Ok((object, stamp)) => {
                collection.encrypted.readable(key, stamp);
                Some(Arc::new(object))
            }
            Err(EngineError::Encrypted { detail, .. }) => {
                tracing::error!(
                    key = record.key,
                    reason = detail,
                    "an object in etcd cannot be read"
                );
                let value = Unreadable { record: record.clone(), reason: detail };
                collection.encrypted.unreadable(key, value);
                None
            }
            Err(error) => {
                tracing::error!(%error, "an object in etcd cannot be read");
                None
            }
        }
    }

    /// Reads everything again, when the events in between cannot be had.
    async fn replace_all(&self) -> Result<u64, CallError> {
        let (records, revision) = self.read().await?;
        let collections = self.shelf.collections();
        let mut states: HashMap<&str, BTreeMap<Arc<str>, Arc<Object>>> = HashMap::new();
        let mut unclaimed = self.shelf.unclaimed();
        unclaimed.clear();
        collections.values().for_each(|collection| collection.encrypted.clear());
        for record in records {
            let Some(collection) = find(&collections, &record.key) else {
                unclaimed.insert(record.key.clone(), record);
                continue;
            };
            let prefix = collection.spec().prefix.as_str();
            let key: Arc<str> = record.key[prefix.len()..].into();
            let shown = self.read_into(collection, &key, &record).or_else(|| collection.get(&key));
            states.entry(prefix).or_default().extend(shown.map(|object| (key, object)));
        }
        self.shelf.current.store(revision, Ordering::Release);
        for (prefix, collection) in collections.iter() {
            collection.replace(states.remove(prefix.as_str()).unwrap_or_default(), revision);
        }
        drop((unclaimed, collections));
        self.seen.send_replace(revision);
        Ok(revision)
    }
}
