//! Snapshot-and-follow: the one read primitive (design §4), as seen by a client.

use std::sync::Arc;

use api::Object;
use tokio::sync::mpsc;

/// What to follow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Follow {
    pub group: String,
    pub version: String,
    /// Plural, lower case.
    pub resource: String,
    /// Empty for all namespaces and for cluster-scoped resources.
    pub namespace: String,
    /// In the query's syntax; empty matches all.
    pub label_selector: String,
    pub field_selector: String,
}

/// One step of a followed collection.
#[derive(Debug, Clone)]
pub enum FollowEvent {
    /// What follows is a new snapshot: what it does not mention is gone.
    Reset,
    /// The object exists in this state.
    Put(Arc<Object>),
    /// The object is gone (or no longer matches); its last known state.
    Delete(Arc<Object>),
    /// The snapshot is complete as of this revision.
    Synced(u64),
}

/// The receiving end; dropping it ends the follow.
#[derive(Debug)]
pub struct Follower {
    events: mpsc::Receiver<FollowEvent>,
}

impl Follower {
    /// A channel for a transport to feed. Back-pressure is the channel's capacity.
    pub fn channel() -> (mpsc::Sender<FollowEvent>, Follower) {
        // Large enough that a burst of one list page does not switch tasks per object.
        let (sender, events) = mpsc::channel(256);
        (sender, Follower { events })
    }

    /// The next step; `None` only when the transport has shut down.
    pub async fn next(&mut self) -> Option<FollowEvent> {
        self.events.recv().await
    }

    /// A step that is already there.
    pub fn try_next(&mut self) -> Option<FollowEvent> {
        self.events.try_recv().ok()
    }
}
