//! What an actor remembers between events; lost when the agent restarts, so nothing here may be
//! needed to leave running containers alone.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::Timestamp;

use crate::admission::Refusal;

/// The waits before something is tried again: they double each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    pub(crate) first: Duration,
    pub(crate) max: Duration,
}

/// That of crashed containers, unless the node's settings shorten it, and of failed pulls.
impl Default for Pace {
    fn default() -> Pace {
        Pace { first: Duration::from_secs(10), max: Duration::from_secs(300) }
    }
}

impl Pace {
    /// The first wait is no longer than the longest.
    pub(crate) fn up_to(max: Duration) -> Pace {
        Pace { first: Pace::default().first.min(max), max }
    }
}

/// One operation at a time each.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Slot {
    Sandbox,
    Volumes,
    Container(String),
    Status,
    Delete,
    Cleanup,
    Resize,
}

/// What runs in a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Busy {
    Starting,
    /// With the grace period it was begun with, in seconds.
    Killing {
        grace: i64,
    },
    Other,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Volumes {
    #[default]
    Unmounted,
    Mounted {
        refresh_at: Option<Timestamp>,
    },
    Failed {
        retry_at: Timestamp,
    },
    TornDown,
}

/// Doubling waits (client-go's flow control): an entry counts for twice the longest wait.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    pub(crate) pace: Pace,
    entry: Option<(Duration, Timestamp)>,
}

impl Backoff {
    fn fresh(&self, event: Timestamp) -> Option<(Duration, Timestamp)> {
        let (delay, updated) = self.entry?;
        let age = event.duration_since(updated);
        (age <= jiff::SignedDuration::try_from(self.pace.max * 2).ok()?).then_some((delay, updated))
    }

    /// Until when an event that happened at `event` must wait, if it must at `now`.
    pub(crate) fn wait(&self, event: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let (delay, _) = self.fresh(event)?;
        let until = event.checked_add(delay).ok()?;
        (now < until).then_some(until)
    }

    /// Until when the last try keeps the next one waiting, if it does at `now`.
    pub(crate) fn wait_since_update(&self, now: Timestamp) -> Option<Timestamp> {
        let (delay, updated) = self.fresh(now)?;
        updated.checked_add(delay).ok().filter(|until| now < *until)
    }

    pub(crate) fn delay(&self) -> Duration {
        self.entry.map_or(self.pace.first, |(delay, _)| delay)
    }

    /// Another try begins, after an event at `event`.
    pub(crate) fn next(&mut self, event: Timestamp, now: Timestamp) {
        let delay = match self.fresh(event) {
            Some((delay, _)) => (delay * 2).min(self.pace.max),
            None => self.pace.first,
        };
        self.entry = Some((delay, now));
    }
}

/// Why a container is not running, as `state.waiting` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) reason: String,
    pub(crate) message: String,
    /// Not tried again before.
    pub(crate) retry_at: Option<Timestamp>,
}

/// Probe verdicts on one instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Verdicts {
    pub(crate) instance: String,
    pub(crate) started: Option<bool>,
    pub(crate) ready: Option<bool>,
    pub(crate) alive: Option<bool>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ContainerMemory {
    pub(crate) crash: Backoff,
    pub(crate) waiting: Option<Waiting>,
    pub(crate) verdicts: Verdicts,
    /// The number of the last run, if all were removed to begin the pod anew.
    pub(crate) removed: Option<u32>,
    /// The instance that is killed because its definition changed.
    pub(crate) replaced: Option<String>,
}

/// The pod must end though the API has not asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) reason: String,
    pub(crate) message: String,
    /// Overrides the pod's own grace period.
    pub(crate) grace: Option<i64>,
    /// Message of the condition `DisruptionTarget`, if it gets one.
    pub(crate) disruption: Option<String>,
}

/// The failed pulls of one image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pull {
    pub(crate) backoff: Backoff,
    /// The last error with its reason: shown while backing off.
    pub(crate) error: String,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    /// What container ids are prefixed with: `<name>://`.
    pub(crate) runtime_name: String,
    pub(crate) busy: BTreeMap<Slot, Busy>,
    pub(crate) volumes: Volumes,
    pub(crate) containers: HashMap<String, ContainerMemory>,
    /// By the image's name in the spec.
    pub(crate) pulls: HashMap<String, Pull>,
    pub(crate) sandbox_retry: Option<Timestamp>,
    /// Volumes that could not be unmounted or removed are tried again then.
    pub(crate) teardown_retry: Option<Timestamp>,
    pub(crate) ending: Option<Ending>,
    pub(crate) resize: super::resize::Memory,
    /// All containers are being removed to begin the pod anew.
    pub(crate) restarting: bool,
    /// The node has not taken the pod.
    pub(crate) rejected: Option<Refusal>,
    /// Other pods end first to make room for this one.
    pub(crate) held: bool,
    /// The API's object is gone.
    pub(crate) gone: bool,
    /// The last addresses the sandbox had.
    pub(crate) ips: Vec<String>,
    /// The API has the status as it is now.
    pub(crate) status_written: bool,
    /// Not tried again before; the API refused or did not answer.
    pub(crate) status_retry: Option<Timestamp>,
    /// The API has taken the final deletion; finalizers may still hold the object.
    pub(crate) delete_sent: bool,
    pub(crate) delete_retry: Option<Timestamp>,
}

impl Memory {
    pub(crate) fn is_busy(&self, slot: &Slot) -> bool {
        self.busy.contains_key(slot)
    }

    pub(crate) fn container(&mut self, name: &str) -> &mut ContainerMemory {
        self.containers.entry(name.to_owned()).or_default()
    }

    pub(crate) fn is_starting(&self, name: &str) -> bool {
        self.busy.get(&Slot::Container(name.to_owned())) == Some(&Busy::Starting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let delays = |pace: Pace| {
            let mut backoff = Backoff { pace, ..Backoff::default() };
            let next = |n: i64| {
                backoff.next(at(n), at(n));
                backoff.delay().as_secs()
            };
            (0..7).map(next).collect::<Vec<_>>()
        };
        assert_eq!(delays(Pace::default()), [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(delays(Pace::up_to(Duration::from_secs(25))), [10, 20, 25, 25, 25, 25, 25]);
        assert_eq!(delays(Pace::up_to(Duration::from_secs(1))), [1; 7]);
    }
}
