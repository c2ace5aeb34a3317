//! The machine shuts down: pods end in order before, as long as logind waits for them.
//!
//! A machine without logind ends its pods like any process; that is said at the start.

mod dbus;
mod logind;
mod plan;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use client::EventType;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::oneshot;

use crate::admission::Refusal;
use crate::kubelet::Shared;
use crate::node;
use crate::pod::Event;
use crate::spec::uid_of;
use logind::Logind;
use plan::Group;

pub use logind::LogindPlaces;
pub use plan::{ShutdownPeriod, periods};

/// Wait before logind is looked for again.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

const EVENT: &str = "NodeShutdown";
const REASON: &str = "Terminated";
const MESSAGE: &str = "Pod was terminated in response to imminent node shutdown.";
/// What the node's condition says meanwhile.
pub(crate) const NOT_READY: &str = "node is shutting down";

/// Why a node that shuts down takes no pod.
pub(crate) fn refusal() -> Refusal {
    Refusal {
        reason: EVENT.to_owned(),
        message: "Pod was rejected as the node is shutting down.".to_owned(),
    }
}

/// Follows logind; a node without periods for a shutdown needs none.
pub(crate) async fn run(shared: Arc<Shared>) {
    if shared.config.shutdown.is_empty() {
        return std::future::pending().await;
    }
    let mut pause = RETRY;
    loop {
        let needed = plan::total(&shared.config.shutdown);
        match Logind::open(&shared.config.logind, needed).await {
            Ok(logind) => {
                pause = RETRY;
                if let Err(error) = follow(&shared, logind).await {
                    tracing::warn!(%error, "logind is lost; looking for it again");
                }
            }
            Err(error) => {
                tracing::warn!(
                    %error,
                    "graceful node shutdown does not work without logind: a shutdown kills pods"
                );
                pause = (pause * 2).min(RETRY_MAX);
            }
        }
        tokio::time::sleep(pause).await;
    }
}

async fn follow(shared: &Shared, mut logind: Logind) -> io::Result<()> {
    let mut lock: Option<OwnedFd> = Some(logind.inhibit().await?);
    loop {
        let begins = logind.news().await?;
        let text = match begins {
            true => "Shutdown manager detected shutdown event",
            false => "Shutdown manager detected shutdown cancellation",
        };
        let about = node::about(shared);
        shared.recorder.event(&about, EventType::Normal, EVENT, text.to_owned());
        shared.shutting_down.store(begins, Ordering::Relaxed);
        shared.status_due.notify_one();
        match begins {
            true => {
                end_pods(shared).await;
                // The machine goes down now.
                lock = None;
            }
            false if lock.is_none() => lock = Some(logind.inhibit().await?),
            false => {}
        }
    }
}

async fn end_pods(shared: &Shared) {
    for group in plan::groups(&shared.config.shutdown, shared.pods.list()) {
        let limit = Duration::from_secs(u64::try_from(group.seconds).unwrap_or(0));
        let ends = group.pods.iter().map(|pod| end(shared, &group, pod));
        if tokio::time::timeout(limit, join_all(ends)).await.is_err() {
            tracing::warn!(pods = group.pods.len(), "pods have not ended in time for the shutdown");
        }
    }
}

async fn end(shared: &Shared, group: &Group, pod: &Pod) {
    let (sender, ended) = oneshot::channel();
    let event = Event::Evict {
        reason: REASON,
        message: MESSAGE.to_owned(),
        grace: Some(group.grace(pod)),
        disruption: Some(MESSAGE.to_owned()),
        announced: false,
        ended: Some(sender),
    };
    if shared.tell(uid_of(pod), event) {
        // An actor that is gone has dropped the sender, which says the same.
        let _ended = ended.await;
    }
}
