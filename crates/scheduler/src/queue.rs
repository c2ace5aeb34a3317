//! The scheduling queue: pods to try now by priority, pods backing off, and unschedulable pods that wait
//! for an event that may help them.
//!
//! Events that arrive while a pod is being scheduled are kept until it is known whether it was rejected,
//! so that none is missed. When nothing else is to be tried, pods are taken out of their back-off early,
//! but not those whose last attempt failed for an error.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::event::{ClusterEvent, Object, pod_actions};
use crate::figures;
use crate::pod::PodInfo;

/// Longest that a pod stays unschedulable without being tried again (upstream's
/// `podMaxInUnschedulablePodsDuration`).
const UNSCHEDULABLE_MAX: Duration = Duration::from_secs(300);

/// Upstream's names of what brings a pod into a queue, beside events of the cluster
/// (`pkg/scheduler/framework/events.go`).
const ADDED: &str = "UnschedulablePodAdd";
const UPDATED: &str = "UnschedulablePodUpdate";
const FAILED: &str = "ScheduleAttemptFailure";
const ACTIVATED: &str = "ForceActivate";
const BACKED_OFF: &str = "BackoffComplete";
const TIMED_OUT: &str = "UnschedulableTimeout";
const POPPED: &str = "PopFromBackoffQ";

/// Which plugins let pods in, and which events may help what they rejected.
pub(crate) trait Hints {
    /// The plugin that keeps the pod from being tried.
    fn gate(&self, pod: &PodInfo) -> Option<&'static str>;
    fn is_worth_requeuing(
        &self,
        pod: &PodInfo,
        rejectors: &BTreeSet<&'static str>,
        event: &ClusterEvent,
    ) -> bool;
}

type Active = (Reverse<i32>, Instant, u64, String);
type Backoff = (Instant, Reverse<i32>, u64, String);

#[derive(Debug)]
pub(crate) struct Queue {
    pods: HashMap<String, Queued>,
    active: BTreeSet<Active>,
    backoff: BTreeSet<Backoff>,
    /// By the time since which they are unschedulable.
    unschedulable: BTreeSet<(Instant, String)>,
    /// Pods that are being scheduled; events since then are in `missed`.
    in_flight: HashSet<String>,
    missed: Vec<ClusterEvent>,
    /// Pods whose victims are being ended: they are not tried before that is done.
    preempting: HashSet<String>,
    sequence: u64,
    initial_backoff: Duration,
    max_backoff: Duration,
}

#[derive(Debug)]
struct Queued {
    pod: Arc<PodInfo>,
    place: Place,
    /// Since when it waits; the order among equals.
    since: Instant,
    /// How often it was tried, and when for the first time.
    attempts: u32,
    first_attempt: Option<Instant>,
    /// Attempts that found no node, and attempts in a row that went wrong.
    rejections: u32,
    errors: u32,
    failed_at: Option<Instant>,
    rejectors: BTreeSet<&'static str>,
    gated: bool,
}

#[derive(Debug)]
enum Place {
    Active(Active),
    Backoff(Backoff),
    Unschedulable(Instant),
    /// Taken by the planner.
    InFlight,
}

/// Pods that wait, by what for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) active: usize,
    pub(crate) backoff: usize,
    pub(crate) unschedulable: usize,
    pub(crate) gated: usize,
    /// Unschedulable ones, by profile and the plugins that rejected them.
    pub(crate) by_plugin: BTreeMap<(String, &'static str), usize>,
}

impl Queue {
    pub(crate) fn new(initial_backoff: Duration, max_backoff: Duration) -> Queue {
        Queue {
            pods: HashMap::new(),
            active: BTreeSet::new(),
            backoff: BTreeSet::new(),
            unschedulable: BTreeSet::new(),
            in_flight: HashSet::new(),
            missed: Vec::new(),
            preempting: HashSet::new(),
            sequence: 0,
            initial_backoff,
            max_backoff,
        }
    }

    /// A new pod, or a new state of a known one, which is tried again only if what changed may help.
    pub(crate) fn put(&mut self, pod: Arc<PodInfo>, hints: &impl Hints, now: Instant) {
        let uid = pod.uid().to_owned();
        let Some(queued) = self.pods.get_mut(&uid) else {
            self.add(pod, now);
            return self.activate(&uid, ADDED, hints, now);
        };
        let old = std::mem::replace(&mut queued.pod, pod.clone());
        let change = (Some(old.pod.clone()), Some(pod.pod.clone()));
        let event = ClusterEvent::new(pod_actions(&old.pod, &pod.pod), Object::Pod(change));
        match queued.place {
            Place::Unschedulable(_) => self.requeue_if_helped(&uid, &event, hints, now),
            Place::InFlight if self.in_flight.contains(&uid) => self.missed.push(event),
            // Its priority or its order may have changed.
            Place::Active(_) if old.priority() != pod.priority() => {
                self.activate(&uid, UPDATED, hints, now);
            }
            _ => {}
        }
    }

    pub(crate) fn remove(&mut self, uid: &str) {
        self.take_out(uid);
        self.pods.remove(uid);
        self.preempting.remove(uid);
        self.done(uid);
    }

    pub(crate) fn contains(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// The most important pod to try, or when the next one will be.
    pub(crate) fn pop(
        &mut self,
        hints: &impl Hints,
        now: Instant,
    ) -> Result<Arc<PodInfo>, Option<Instant>> {
        self.flush(hints, now);
        if self.active.is_empty() {
            self.take_from_backoff(hints, now);
        }
        let Some((.., uid)) = self.active.first().cloned() else {
            let stale = self.unschedulable.first().map(|(since, _)| *since + UNSCHEDULABLE_MAX);
            let due = self.backoff.first().map(|(at, ..)| *at);
            return Err(stale.into_iter().chain(due).min());
        };
        self.take_out(&uid);
        let queued = self.pods.get_mut(&uid).expect("what is active is known");
        queued.attempts += 1;
        queued.first_attempt.get_or_insert(now);
        self.in_flight.insert(uid);
        Ok(queued.pod.clone())
    }

    /// How often the pod was tried, and when for the first time.
    pub(crate) fn attempts(&self, uid: &str) -> Option<(u32, Instant)> {
        let queued = self.pods.get(uid)?;
        Some((queued.attempts, queued.first_attempt?))
    }

    /// Counts the pods that wait.
    pub(crate) fn count_into(&self, waiting: &mut Waiting) {
        waiting.active += self.active.len();
        waiting.backoff += self.backoff.len();
        for queued in self.unschedulable.iter().filter_map(|(_, uid)| self.pods.get(uid)) {
            match queued.gated {
                true => waiting.gated += 1,
                false => waiting.unschedulable += 1,
            }
            for plugin in &queued.rejectors {
                let profile = queued.pod.scheduler_name().to_owned();
                *waiting.by_plugin.entry((profile, plugin)).or_default() += 1;
            }
        }
    }

    /// The pod's attempt has ended.
    pub(crate) fn done(&mut self, uid: &str) {
        self.in_flight.remove(uid);
        if self.in_flight.is_empty() {
            self.missed.clear();
        }
    }

    /// No node would do: the pod waits for an event that helps what these plugins rejected.
    pub(crate) fn add_unschedulable(
        &mut self,
        uid: &str,
        rejectors: BTreeSet<&'static str>,
        hints: &impl Hints,
        now: Instant,
    ) {
        let Some(queued) = self.pods.get_mut(uid) else { return self.done(uid) };
        queued.rejections += 1;
        queued.errors = 0;
        queued.failed_at = Some(now);
        queued.since = now;
        queued.rejectors = rejectors;
        let (pod, rejectors) = (queued.pod.clone(), queued.rejectors.clone());
        let helps = |event: &&ClusterEvent| {
            rejectors.is_empty() || hints.is_worth_requeuing(&pod, &rejectors, event)
        };
        let helped = self.missed.iter().find(helps).map(ClusterEvent::label);
        self.done(uid);
        match helped {
            Some(event) => self.requeue(uid, &event, hints, now),
            None => self.set_unschedulable(uid, FAILED, now),
        }
    }

    /// The attempt went wrong: again after the back-off.
    pub(crate) fn add_failed(&mut self, pod: Arc<PodInfo>, hints: &impl Hints, now: Instant) {
        let uid = pod.uid().to_owned();
        self.done(&uid);
        self.take_out(&uid);
        if !self.pods.contains_key(&uid) {
            self.add(pod, now);
        }
        if let Some(queued) = self.pods.get_mut(&uid) {
            queued.errors += 1;
            queued.failed_at = Some(now);
            queued.since = now;
            queued.rejectors.clear();
        }
        self.requeue(&uid, FAILED, hints, now);
    }

    /// Tries those unschedulable pods again that the event may help.
    pub(crate) fn on_event(&mut self, event: &ClusterEvent, hints: &impl Hints, now: Instant) {
        if !self.in_flight.is_empty() {
            self.missed.push(event.clone());
        }
        let helped = |uid: &String| {
            self.pods.get(uid).is_some_and(|queued| {
                queued.rejectors.is_empty()
                    || hints.is_worth_requeuing(&queued.pod, &queued.rejectors, event)
            })
        };
        let all = self.unschedulable.iter().map(|(_, uid)| uid);
        let helped: Vec<String> = all.filter(|uid| helped(uid)).cloned().collect();
        for uid in helped {
            self.requeue(&uid, &event.label(), hints, now);
        }
    }

    /// The pod's victims are being ended.
    pub(crate) fn start_preempting(&mut self, uid: &str) {
        self.preempting.insert(uid.to_owned());
    }

    /// The pod's victims have been told to end, or could not be: then it is tried again at once.
    pub(crate) fn end_preempting(
        &mut self,
        uid: &str,
        failed: bool,
        hints: &impl Hints,
        now: Instant,
    ) {
        self.preempting.remove(uid);
        let waits = self.pods.get(uid).is_some_and(|q| matches!(q.place, Place::Unschedulable(_)));
        let helped = self.pods.get(uid).is_some_and(|q| q.gated);
        if waits && (failed || helped) {
            self.requeue(uid, ACTIVATED, hints, now);
        }
    }

    /// Back-off times that have passed, and pods that were unschedulable for too long.
    fn flush(&mut self, hints: &impl Hints, now: Instant) {
        while let Some((at, .., uid)) = self.backoff.first().cloned() {
            if at > now {
                break;
            }
            self.activate(&uid, BACKED_OFF, hints, now);
        }
        while let Some((since, uid)) = self.unschedulable.first().cloned() {
            if since + UNSCHEDULABLE_MAX > now {
                break;
            }
            self.requeue(&uid, TIMED_OUT, hints, now);
            // One that is gated waits again.
            let still = self
                .pods
                .get(&uid)
                .is_some_and(|q| matches!(q.place, Place::Unschedulable(s) if s == since));
            if still {
                self.set_unschedulable(&uid, TIMED_OUT, now);
            }
        }
    }

    fn take_from_backoff(&mut self, hints: &impl Hints, now: Instant) {
        let early = |(.., uid): &&Backoff| self.pods.get(uid).is_some_and(|q| q.errors == 0);
        if let Some((.., uid)) = self.backoff.iter().find(early).cloned() {
            self.activate(&uid, POPPED, hints, now);
        }
    }

    fn requeue_if_helped(
        &mut self,
        uid: &str,
        event: &ClusterEvent,
        hints: &impl Hints,
        now: Instant,
    ) {
        let Some(queued) = self.pods.get(uid) else { return };
        let helped = queued.rejectors.is_empty()
            || hints.is_worth_requeuing(&queued.pod, &queued.rejectors, event);
        if helped {
            self.requeue(uid, &event.label(), hints, now);
        }
    }

    /// Active again, or backing off for the rest of its time.
    fn requeue(&mut self, uid: &str, event: &str, hints: &impl Hints, now: Instant) {
        let Some(queued) = self.pods.get(uid) else { return };
        let tries = if queued.errors > 0 { queued.errors } else { queued.rejections };
        let due = queued.failed_at.map(|at| at + self.backoff_for(tries));
        let Some(due) = due.filter(|due| *due > now) else {
            return self.activate(uid, event, hints, now);
        };
        self.take_out(uid);
        let sequence = self.next_sequence();
        if let Some(queued) = self.pods.get_mut(uid) {
            let slot = (due, Reverse(queued.pod.priority()), sequence, uid.to_owned());
            queued.place = Place::Backoff(slot.clone());
            self.backoff.insert(slot);
            figures::came("backoff", event);
        }
    }

    fn activate(&mut self, uid: &str, event: &str, hints: &impl Hints, now: Instant) {
        self.take_out(uid);
        let sequence = self.next_sequence();
        let preempting = self.preempting.contains(uid);
        let Some(queued) = self.pods.get_mut(uid) else { return };
        let gate = hints.gate(&queued.pod);
        queued.gated = gate.is_some() || preempting;
        if queued.gated {
            queued.rejectors.extend(gate);
            return self.set_unschedulable(uid, event, now);
        }
        let slot = (Reverse(queued.pod.priority()), queued.since, sequence, uid.to_owned());
        queued.place = Place::Active(slot.clone());
        self.active.insert(slot);
        figures::came("active", event);
    }

    fn set_unschedulable(&mut self, uid: &str, event: &str, now: Instant) {
        self.take_out(uid);
        if let Some(queued) = self.pods.get_mut(uid) {
            queued.place = Place::Unschedulable(now);
            self.unschedulable.insert((now, uid.to_owned()));
            figures::came("unschedulable", event);
        }
    }

    fn add(&mut self, pod: Arc<PodInfo>, now: Instant) {
        let queued = Queued {
            place: Place::InFlight,
            since: now,
            attempts: 0,
            first_attempt: None,
            rejections: 0,
            errors: 0,
            failed_at: None,
            rejectors: BTreeSet::new(),
            gated: false,
            pod: pod.clone(),
        };
        self.pods.insert(pod.uid().to_owned(), queued);
    }

    fn take_out(&mut self, uid: &str) {
        let Some(queued) = self.pods.get_mut(uid) else { return };
        match std::mem::replace(&mut queued.place, Place::InFlight) {
            Place::Active(slot) => drop(self.active.remove(&slot)),
            Place::Backoff(slot) => drop(self.backoff.remove(&slot)),
            Place::Unschedulable(since) => {
                self.unschedulable.remove(&(since, uid.to_owned()));
            }
            Place::InFlight => {}
        }
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Doubles with every try.
    fn backoff_for(&self, tries: u32) -> Duration {
        let doublings = tries.saturating_sub(1).min(16);
        self.initial_backoff.saturating_mul(1 << doublings).min(self.max_backoff)
    }
}

#[cfg(test)]
mod tests;
