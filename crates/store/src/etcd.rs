//! A real etcd as the home of the state, which several servers may share.
//!
//! Keys and values are laid out as upstream does. The collections are filled once and then fed
//! by one watch, as they are by the embedded engine's writer; a write is a transaction that
//! compares the key's last change, and is answered when the watch has brought it. So whoever reads
//! the collections does not notice which of the two is below.
//!
//! [`wire`] is written by hand: the ready-made client needs `protoc` on the machine that builds, and brings a
//! second HTTP stack.

mod client;
mod compact;
mod endpoint;
mod form;
mod grpc;
mod lease;
mod mirror;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::grpc::Tasks;
use api::Object;
use async_trait::async_trait;
use tokio::sync::watch;

use self::client::Outcome;
use self::endpoint::Endpoint;
pub use self::endpoint::EtcdOptions;
pub(crate) use self::form::{decode, encode};
use self::grpc::{CallError, Channel};
use self::lease::Leases;
use self::wire::KeyValue;
use crate::collection::Collection;
use crate::engine::{EngineError, Record};
use crate::shelf::Shelf;
use crate::store::{Backend, Expect, Write, WriteError};
use crate::transformer::Form;

/// How long a write or a read waits for the watch to bring what etcd has.
const VISIBLE: Duration = Duration::from_secs(10);
/// After this, the missing revisions are taken for changes outside the prefix.
const NUDGE: Duration = Duration::from_millis(100);
/// Key below the prefix that is written to bring the watch forward. Upstream ignores it.
const NUDGE_KEY: &str = "/trireme/progress";
/// gRPC's codes for "not found", "out of space" and "cannot be had now".
const NOT_FOUND: u32 = 5;
const RESOURCE_EXHAUSTED: u32 = 8;
const UNAVAILABLE: u32 = 14;

/// The connection to etcd, shared by the tasks that keep the collections.
#[derive(Debug)]
struct Link {
    channel: Channel,
    leases: Leases,
    /// In etcd, without a slash at its end.
    prefix: String,
    shelf: Arc<Shelf>,
    /// Up to where the collections show what etcd has.
    seen: watch::Sender<u64>,
    compaction_interval: Duration,
    form: Form,
}

/// An etcd, followed until this is dropped or closed.
#[derive(Debug)]
pub(crate) struct Etcd {
    link: Arc<Link>,
    tasks: Tasks,
    closed: AtomicBool,
}

impl Etcd {
    /// Reads all there is; nothing is followed yet.
    pub(crate) async fn connect(
        options: EtcdOptions,
        shelf: Arc<Shelf>,
    ) -> Result<(Etcd, Vec<Record>, u64), EngineError> {
        let path = format!("etcd at {}", options.servers.join(","));
        let fault = |detail: String| EngineError::Open { path: path.clone(), detail };
        let endpoints: Vec<Endpoint> = options
            .servers
            .iter()
            .map(|url| Endpoint::parse(url))
            .collect::<Result<_, _>>()
            .map_err(&fault)?;
        if endpoints.is_empty() {
            return Err(fault("no server is named".into()));
        }
        let tls = endpoint::tls(&options, &endpoints).map_err(&fault)?;
        let prefix = options.full_prefix();
        let link = Arc::new(Link {
            channel: Channel::new(endpoints, tls),
            leases: Leases::default(),
            prefix,
            shelf,
            seen: watch::Sender::new(0),
            compaction_interval: options.compaction_interval,
            form: options.form,
        });
        let (records, revision) = link.read_patiently().await.map_err(|e| fault(e.to_string()))?;
        Ok((Etcd { link, tasks: Tasks::default(), closed: false.into() }, records, revision))
    }

    /// Keeps the collections up to date from `revision` on.
    pub(crate) fn follow(&self, revision: u64) {
        self.link.seen.send_replace(revision);
        self.tasks.spawn("mirror of etcd", self.link.clone().mirror());
        self.tasks.spawn("compaction of etcd", self.link.clone().compact_regularly());
    }
}

impl Link {
    /// What etcd returned, as the collections name it; absent for what is not text.
    fn record(&self, kv: KeyValue) -> Option<Record> {
        let key = self.shelf.inner(&String::from_utf8(kv.key).ok()?)?;
        let revision = u64::try_from(kv.mod_revision).ok()?;
        Some(Record { key, value: Some(kv.value), revision })
    }

    async fn wait_until(&self, revision: u64, patience: Duration) -> bool {
        let mut seen = self.seen.subscribe();
        let reached = seen.wait_for(|seen| *seen >= revision);
        tokio::time::timeout(patience, reached).await.is_ok_and(|r| r.is_ok())
    }

    async fn write(
        &self,
        write: Write,
        lifetime: Option<Duration>,
    ) -> Result<Arc<Object>, WriteError> {
        let Write { collection, key, expect, draft } = write;
        let inner = format!("{}{key}", collection.spec().prefix);
        let full = self.shelf.outer(&inner);
        let expected = match expect {
            Expect::Absent => 0,
            Expect::Revision(revision) => revision,
        };
        let old = collection.get(&key);
        let value = draft.as_ref().map(|d| encode(d.stored(), self.form)).transpose();
        let value = value.map_err(WriteError::Engine)?;
        let kept = value.map(|value| self.shelf.kept(&inner, value)).transpose();
        let value = kept.map_err(WriteError::Encryption)?.map(|kept| kept.bytes);
        let outcome = self.put_or_delete(&full, expected, value, lifetime).await;
        let outcome = outcome.map_err(write_error)?;
        if let Some(present) = outcome.refused {
            return self.refusal(&collection, present, outcome.revision).await;
        }
        if !self.wait_until(outcome.revision, VISIBLE).await {
            let text = "it was written to etcd, whose changes cannot be followed now";
            return Err(WriteError::Unknown(text.into()));
        }
        match draft {
            Some(draft) => {
                let shown = collection.get(&key).filter(|o| o.revision() == outcome.revision);
                Ok(shown.unwrap_or_else(|| Arc::new(draft.at(outcome.revision))))
            }
            None => {
                let old = old.filter(|o| o.revision() == expected).ok_or_else(|| {
                    WriteError::Unknown("it was deleted in a state not seen before".into())
                })?;
                Ok(Arc::new(old.at(outcome.revision)))
            }
        }
    }

    /// One conditional write, with a lease when it is to go by itself.
    async fn put_or_delete(
        &self,
        key: &str,
        expected: u64,
        value: Option<Vec<u8>>,
        lifetime: Option<Duration>,
    ) -> Result<Outcome, CallError> {
        let Some(lifetime) = lifetime.filter(|_| value.is_some()) else {
            return self.channel.write_if(key, expected, value, 0).await;
        };
        let lease = self.leases.of(&self.channel, lifetime).await?;
        match self.channel.write_if(key, expected, value.clone(), lease).await {
            // Somebody revoked it, or etcd's clock ran ahead: nothing was written.
            Err(CallError::Refused { code: NOT_FOUND, .. }) => {
                self.leases.forget(lease).await;
                let lease = self.leases.of(&self.channel, lifetime).await?;
                self.channel.write_if(key, expected, value, lease).await
            }
            other => other,
        }
    }

    /// A conflict, told when the collections show what it is about: who tries again reads them.
    async fn refusal(
        &self,
        collection: &Collection,
        present: Option<KeyValue>,
        revision: u64,
    ) -> Result<Arc<Object>, WriteError> {
        match &present {
            Some(kv) => {
                let changed = u64::try_from(kv.mod_revision).unwrap_or(0);
                self.wait_until(changed, VISIBLE).await;
            }
            // When it was deleted is not known, only that it was by now.
            None => drop(self.wait_until(revision, NUDGE).await),
        }
        Err(WriteError::Conflict(self.present(collection, present)))
    }

    fn present(&self, collection: &Collection, present: Option<KeyValue>) -> Option<Arc<Object>> {
        let record = self.record(present?)?;
        self.shelf.object(collection, &record).ok().map(|(object, _)| Arc::new(object))
    }

    async fn catch_up(&self) -> Result<(), WriteError> {
        let nudge_key = format!("{}{NUDGE_KEY}", self.prefix);
        let revision = self.channel.revision(&nudge_key).await.map_err(write_error)?;
        if self.wait_until(revision, NUDGE).await {
            return Ok(());
        }
        // A change outside the prefix moves etcd's revision, but no watch brings it. Asking for
        // progress would tell, were it not that etcd before 3.4.25 may answer ahead of its events.
        let nudged = self.channel.put(&nudge_key).await.map_err(write_error)?;
        match self.wait_until(nudged, VISIBLE).await {
            true => Ok(()),
            false => Err(WriteError::Unavailable("etcd cannot be followed now".into())),
        }
    }
}

fn write_error(error: CallError) -> WriteError {
    let text = error.to_string();
    match error {
        CallError::Unreachable(_) => WriteError::Unavailable(text),
        CallError::Refused { message, .. } if message == WriteError::TooLarge.to_string() => {
            WriteError::TooLarge
        }
        CallError::Refused { code: RESOURCE_EXHAUSTED, .. } => WriteError::Full(text),
        CallError::Refused { code: UNAVAILABLE, message } if message.ends_with("no leader") => {
            WriteError::Unavailable(text)
        }
        CallError::Refused { code: UNAVAILABLE, .. } | CallError::Lost(_) | CallError::Late(_) => {
            WriteError::Unknown(text)
        }
        CallError::Refused { .. } => WriteError::Engine(text),
    }
}

#[async_trait]
impl Backend for Etcd {
    async fn write(
        &self,
        write: Write,
        lifetime: Option<Duration>,
    ) -> Result<Arc<Object>, WriteError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(WriteError::Closed);
        }
        self.link.write(write, lifetime).await
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn catch_up(&self) -> Result<(), WriteError> {
        self.link.catch_up().await
    }

    async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.tasks.shutdown().await;
        self.link.channel.close().await;
    }
}
