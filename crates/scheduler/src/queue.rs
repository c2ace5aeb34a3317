//! Pods that want a node: those to try now by priority, those backing off, those parked until
//! something happens that may help them.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::filter::Filter;
use crate::pod::PodInfo;

/// First wait after a failed try; doubles with each (upstream's podInitialBackoffSeconds).
const BACKOFF_BASE: Duration = Duration::from_secs(1);
/// Longest wait (upstream's podMaxBackoffSeconds).
const BACKOFF_MAX: Duration = Duration::from_secs(10);

type Active = (Reverse<i32>, u64, String);
type Waiting = (Instant, u64, String);

#[derive(Debug, Default)]
pub(crate) struct Queue {
    pods: HashMap<String, Entry>,
    active: BTreeSet<Active>,
    waiting: BTreeSet<Waiting>,
    parked: BTreeSet<String>,
    sequence: u64,
}

#[derive(Debug)]
struct Entry {
    pod: Arc<PodInfo>,
    tries: u32,
    place: Place,
    failed_at: Option<Instant>,
    filters: BTreeSet<Filter>,
}

#[derive(Debug)]
enum Place {
    Active(Active),
    Waiting(Waiting),
    Parked,
    /// Taken by the scheduler.
    Out,
}

/// Something that may make room for parked pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Helps {
    /// A new node: everybody's chance.
    All,
    /// Only what these filters refused.
    Only(&'static [Filter]),
}

impl Queue {
    /// A new pod, or a new state of a known one; only a change of what it asks for counts as a
    /// reason to try again.
    pub(crate) fn put(&mut self, pod: Arc<PodInfo>, now: Instant) {
        let uid = pod.uid().to_owned();
        match self.pods.get_mut(&uid) {
            Some(entry) => {
                let same = entry.pod.pod.spec == pod.pod.spec
                    && entry.pod.pod.metadata.labels == pod.pod.metadata.labels;
                entry.pod = pod;
                if !same && matches!(entry.place, Place::Parked) {
                    self.revive(&uid, now);
                }
            }
            None => {
                let filters = BTreeSet::new();
                let entry = Entry { pod, tries: 0, place: Place::Out, failed_at: None, filters };
                self.pods.insert(uid.clone(), entry);
                self.activate(&uid);
            }
        }
    }

    pub(crate) fn remove(&mut self, uid: &str) {
        self.take_out(uid);
        self.pods.remove(uid);
    }

    /// The most important pod whose time has come, or when the next one's will.
    pub(crate) fn pop(&mut self, now: Instant) -> Result<Arc<PodInfo>, Option<Instant>> {
        while let Some((at, _, uid)) = self.waiting.first().cloned() {
            if at > now {
                break;
            }
            self.activate(&uid);
        }
        let Some((_, _, uid)) = self.active.first().cloned() else {
            return Err(self.waiting.first().map(|(at, ..)| *at));
        };
        self.take_out(&uid);
        let entry = self.pods.get_mut(&uid).expect("what is active is known");
        entry.tries += 1;
        Ok(entry.pod.clone())
    }

    /// The pod could not be placed: wait until something helps what these filters refused.
    pub(crate) fn park(&mut self, uid: &str, filters: BTreeSet<Filter>, now: Instant) {
        if let Some(entry) = self.pods.get_mut(uid) {
            entry.filters = filters;
            entry.failed_at = Some(now);
            entry.place = Place::Parked;
            self.parked.insert(uid.to_owned());
        }
    }

    /// The try went wrong for reasons outside the plan: again after the back-off.
    pub(crate) fn retry(&mut self, pod: Arc<PodInfo>, now: Instant) {
        let uid = pod.uid().to_owned();
        let entry = self.pods.entry(uid.clone()).or_insert_with(|| Entry {
            pod,
            tries: 1,
            place: Place::Out,
            failed_at: None,
            filters: BTreeSet::new(),
        });
        entry.failed_at = Some(now);
        self.revive(&uid, now);
    }

    /// Tries parked pods again that `what` may help.
    pub(crate) fn happened(&mut self, what: &Helps, now: Instant) {
        if self.parked.is_empty() {
            return;
        }
        let helped = |uid: &&String| match (what, self.pods.get(*uid)) {
            (Helps::All, _) => true,
            (Helps::Only(filters), Some(e)) => filters.iter().any(|f| e.filters.contains(f)),
            (Helps::Only(_), None) => false,
        };
        let uids: Vec<String> = self.parked.iter().filter(helped).cloned().collect();
        for uid in uids {
            self.revive(&uid, now);
        }
    }

    /// Active again, or waiting for the rest of its back-off.
    fn revive(&mut self, uid: &str, now: Instant) {
        self.take_out(uid);
        let sequence = self.next_sequence();
        let Some(entry) = self.pods.get_mut(uid) else { return };
        let due = entry.failed_at.map(|at| at + backoff(entry.tries));
        match due.filter(|due| *due > now) {
            None => self.activate(uid),
            Some(due) => {
                let slot = (due, sequence, uid.to_owned());
                entry.place = Place::Waiting(slot.clone());
                self.waiting.insert(slot);
            }
        }
    }

    fn activate(&mut self, uid: &str) {
        self.take_out(uid);
        let sequence = self.next_sequence();
        if let Some(entry) = self.pods.get_mut(uid) {
            let slot = (Reverse(entry.pod.priority()), sequence, uid.to_owned());
            entry.place = Place::Active(slot.clone());
            self.active.insert(slot);
        }
    }

    fn take_out(&mut self, uid: &str) {
        let Some(entry) = self.pods.get_mut(uid) else { return };
        match std::mem::replace(&mut entry.place, Place::Out) {
            Place::Active(slot) => drop(self.active.remove(&slot)),
            Place::Waiting(slot) => drop(self.waiting.remove(&slot)),
            Place::Parked => drop(self.parked.remove(uid)),
            Place::Out => {}
        }
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }
}

fn backoff(tries: u32) -> Duration {
    let doublings = tries.saturating_sub(1).min(8);
    BACKOFF_BASE.saturating_mul(1 << doublings).min(BACKOFF_MAX)
}
