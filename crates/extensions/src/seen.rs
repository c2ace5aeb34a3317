//! Objects that were converted lately, so that many watchers of a version ask its webhook once.
//!
//! Upstream keeps, for each served version, a cache of all objects in that version. Here only
//! what was asked for is kept, up to a bound; a state of an object never changes, so what is kept
//! is right until the definition changes, when it goes with the [`Served`](super::Served) it is of.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use api::Object;

/// Bytes of objects that are kept of one version.
const KEPT_MAX: usize = 8 * 1024 * 1024;

/// An object's uid and revision.
type Key = (Box<str>, u64);

#[derive(Debug, Default)]
pub(super) struct Seen {
    kept: Mutex<Kept>,
    /// Taken by watchers one after the other, so that the first one's answer serves the others;
    /// the last failure and when it was.
    pub(super) turn: tokio::sync::Mutex<Option<(Instant, String)>>,
}

#[derive(Debug, Default)]
struct Kept {
    objects: HashMap<Key, Arc<Object>>,
    order: VecDeque<Key>,
    bytes: usize,
}

fn key(object: &Object) -> Key {
    (object.meta().uid.clone(), object.revision())
}

impl Seen {
    pub(super) fn get(&self, stored: &Object) -> Option<Arc<Object>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.objects.get(&key(stored)).cloned()
    }

    /// Keeps what became of a stored object, dropping the oldest for it.
    pub(super) fn put(&self, stored: &Object, shown: Arc<Object>) -> Arc<Object> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let key = key(stored);
        kept.bytes += shown.json().len();
        kept.order.push_back(key.clone());
        if let Some(former) = kept.objects.insert(key, shown.clone()) {
            kept.bytes = kept.bytes.saturating_sub(former.json().len());
        }
        while kept.bytes > KEPT_MAX {
            let Some(oldest) = kept.order.pop_front() else { break };
            if let Some(gone) = kept.objects.remove(&oldest) {
                kept.bytes = kept.bytes.saturating_sub(gone.json().len());
            }
        }
        shown
    }
}

impl super::Served {
    /// Like [`objects`](super::Served::objects), for watchers: one at a time, and whoever waited
    /// while a conversion failed takes that failure for its own instead of waiting as long again.
    pub async fn watched(&self, stored: &[Arc<Object>]) -> Result<Vec<Arc<Object>>, String> {
        let came = Instant::now();
        let mut last = self.seen.turn.lock().await;
        if let Some((_, why)) = last.as_ref().filter(|(at, _)| *at > came) {
            return Err(why.clone());
        }
        let shown = self.objects(stored, None).await;
        *last = shown.as_ref().err().map(|why| (Instant::now(), why.clone()));
        shown
    }
}
