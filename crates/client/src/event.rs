//! The event recorder: tells users, as `Event` objects, what a component did to an object.
//!
//! Repeats of one event (same object, type, reason, message, source) within [`REPEAT_WINDOW`]
//! raise the first one's count instead of making another, as client-go's correlator does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::client::{Client, Patch};
use tasks::Tasks;

/// How long a repeat counts as the same event (client-go: 10 minutes).
const REPEAT_WINDOW: Duration = Duration::from_secs(600);
/// Events waiting to be written; more are dropped, because events must never slow a component.
const PENDING_MAX: usize = 1000;
/// Distinct events remembered for counting repeats.
const REMEMBERED_MAX: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    Normal,
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

struct Record {
    about: ObjectReference,
    kind: EventType,
    reason: String,
    message: String,
}

/// Records events of one component. Clones share the writer.
#[derive(Debug, Clone)]
pub struct Recorder {
    sender: Arc<mpsc::Sender<Record>>,
}

impl Recorder {
    /// `component` is the event's source, e.g. `kubelet`; `host` the node's name or empty.
    pub fn new(client: Client, tasks: &Tasks, component: &str, host: &str) -> Recorder {
        let (sender, receiver) = mpsc::channel(PENDING_MAX);
        let writer = Writer {
            client,
            component: component.to_owned(),
            host: host.to_owned(),
            seen: Mutex::default(),
        };
        tasks.spawn("event recorder", writer.run(receiver));
        Recorder { sender: Arc::new(sender) }
    }

    /// Queues an event about `about`; never waits, drops when too many are waiting.
    pub fn event(
        &self,
        about: &ObjectReference,
        kind: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        let record = Record {
            about: about.clone(),
            kind,
            reason: reason.to_owned(),
            message: message.into(),
        };
        if self.sender.try_send(record).is_err() {
            tracing::debug!(reason, "event dropped: the writer is behind");
        }
    }
}

type Identity = (String, String, EventType, String, String);

struct Known {
    name: String,
    count: i32,
    last: Instant,
}

struct Writer {
    client: Client,
    component: String,
    host: String,
    seen: Mutex<HashMap<Identity, Known>>,
}

impl Writer {
    async fn run(self, mut records: mpsc::Receiver<Record>) {
        while let Some(record) = records.recv().await {
            if let Err(error) = self.write(&record).await {
                tracing::debug!(reason = record.reason, %error, "event not written");
            }
        }
    }

    async fn write(&self, record: &Record) -> Result<(), crate::Error> {
        let namespace = match record.about.namespace.as_deref() {
            Some(ns) if !ns.is_empty() => ns,
            _ => "default",
        };
        if let Some((name, count)) = self.repeat(record) {
            let patch = json!({"count": count, "lastTimestamp": now()});
            let patched = self.client.patch::<Event>(namespace, &name, &Patch::Merge(patch)).await;
            match patched {
                Err(e) if e.is_not_found() => {}
                other => return other.map(drop),
            }
        }
        let event = self.event(record, namespace);
        self.remember(record, event.metadata.name.clone().unwrap_or_default());
        self.client.create(namespace, &event).await.map(drop)
    }

    fn repeat(&self, record: &Record) -> Option<(String, i32)> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let known = seen.get_mut(&identity(record))?;
        if known.last.elapsed() > REPEAT_WINDOW {
            return None;
        }
        known.count += 1;
        known.last = Instant::now();
        Some((known.name.clone(), known.count))
    }

    fn remember(&self, record: &Record, name: String) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= REMEMBERED_MAX {
            seen.retain(|_, known| known.last.elapsed() < REPEAT_WINDOW);
        }
        if seen.len() < REMEMBERED_MAX {
            seen.insert(identity(record), Known { name, count: 1, last: Instant::now() });
        }
    }

    fn event(&self, record: &Record, namespace: &str) -> Event {
        let stamp = jiff::Timestamp::now();
        let about = record.about.name.as_deref().unwrap_or("");
        let name = format!("{about}.{:x}", stamp.as_nanosecond());
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: record.about.clone(),
            type_: Some(record.kind.as_str().to_owned()),
            reason: Some(record.reason.clone()),
            message: Some(record.message.clone()),
            source: Some(EventSource {
                component: Some(self.component.clone()),
                host: Some(self.host.clone()).filter(|h| !h.is_empty()),
            }),
            reporting_component: Some(self.component.clone()),
            reporting_instance: Some(self.host.clone()),
            count: Some(1),
            first_timestamp: Some(Time(now())),
            last_timestamp: Some(Time(now())),
            ..Event::default()
        }
    }
}

fn identity(record: &Record) -> Identity {
    (
        record.about.uid.clone().unwrap_or_default(),
        record.about.field_path.clone().unwrap_or_default(),
        record.kind,
        record.reason.clone(),
        record.message.clone(),
    )
}

/// Now, in whole seconds, as `Time` fields are.
fn now() -> jiff::Timestamp {
    let seconds = jiff::Timestamp::now().as_second();
    jiff::Timestamp::from_second(seconds).expect("now is within jiff's range")
}
