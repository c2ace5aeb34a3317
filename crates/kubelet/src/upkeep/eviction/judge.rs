//! What a node is short of: thresholds, how long they have been met, and when they are over. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::admission::Pressure;
use crate::node::Machine;
use crate::thresholds::{Amount, EvictionConfig, Signal};

/// What there is, and what of it is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Observed {
    pub(super) free: u64,
    pub(super) all: u64,
}

pub(super) type Observations = BTreeMap<Signal, Observed>;

/// Images, volumes and logs are on one file system here. What the machine does not tell is not seen.
pub(super) fn observe(machine: &Machine) -> Observations {
    let disk = Observed { free: machine.disk_available_bytes, all: machine.disk_bytes };
    let inodes = Observed { free: machine.inodes_free, all: machine.inodes };
    let all = [
        (
            Signal::Memory,
            Observed { free: machine.memory_available_bytes, all: machine.memory_bytes },
        ),
        (Signal::NodefsAvailable, disk),
        (Signal::NodefsInodesFree, inodes),
        (Signal::ImagefsAvailable, disk),
        (Signal::ImagefsInodesFree, inodes),
        (
            Signal::Pids,
            Observed { free: machine.pids_max.saturating_sub(machine.pids), all: machine.pids_max },
        ),
    ];
    all.into_iter().filter(|(_, seen)| seen.all > 0).collect()
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Threshold {
    signal: Signal,
    least: Amount,
    /// How long it must be met before pods end for it; `None` for a hard one.
    grace: Option<Duration>,
    reclaim: Option<Amount>,
}

/// Hard ones first.
pub(super) fn thresholds(config: &EvictionConfig) -> Vec<Threshold> {
    let of = |signal: Signal, least, grace| Threshold {
        signal,
        least,
        grace,
        reclaim: config.minimum_reclaim.get(&signal).copied(),
    };
    let hard = config.hard.iter().map(|(signal, least)| of(signal, least, None));
    let soft = config.soft.iter().map(|(signal, least)| {
        of(signal, least, Some(config.soft_grace.get(&signal).copied().unwrap_or_default()))
    });
    hard.chain(soft).collect()
}

/// What pods end for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shortage {
    pub(super) signal: Signal,
    pub(super) is_soft: bool,
    pub(super) threshold: u64,
    pub(super) available: u64,
}

impl Shortage {
    /// Memory is cured first; of one signal, the hard threshold.
    pub(super) fn order(&self) -> (Signal, bool) {
        (self.signal, self.is_soft)
    }
}

#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) pressures: Vec<Pressure>,
    pub(super) shortages: Vec<Shortage>,
}

type Key = (Signal, bool);

/// Remembers since when thresholds are met.
#[derive(Debug, Default)]
pub(super) struct Judge {
    since: BTreeMap<Key, Instant>,
    /// Thresholds that pods end for: over only when the minimum is reclaimed.
    active: BTreeSet<Key>,
    pressures: BTreeMap<Pressure, Instant>,
}

fn pressure(signal: Signal) -> Pressure {
    match signal {
        Signal::Memory => Pressure::Memory,
        Signal::Pids => Pressure::Pids,
        _ => Pressure::Disk,
    }
}

impl Threshold {
    fn key(&self) -> Key {
        (self.signal, self.grace.is_some())
    }

    fn is_met(&self, seen: &Observations, with_reclaim: bool) -> bool {
        let Some(seen) = seen.get(&self.signal) else { return false };
        let more = self.reclaim.filter(|_| with_reclaim).map_or(0, |amount| amount.of(seen.all));
        seen.free < self.least.of(seen.all).saturating_add(more)
    }
}

/// Whether any threshold is met, what is to be reclaimed beyond it included.
pub(super) fn is_short(thresholds: &[Threshold], seen: &Observations) -> bool {
    thresholds.iter().any(|threshold| threshold.is_met(seen, true))
}

/// What the machine is short of at this moment.
pub(crate) fn pressures(machine: &Machine, config: &EvictionConfig) -> Vec<Pressure> {
    let seen = observe(machine);
    let met = thresholds(config).into_iter().filter(|threshold| threshold.is_met(&seen, false));
    let set: BTreeSet<Pressure> = met.map(|threshold| pressure(threshold.signal)).collect();
    set.into_iter().collect()
}

impl Judge {
    pub(super) fn look(
        &mut self,
        thresholds: &[Threshold],
        seen: &Observations,
        transition: Duration,
        now: Instant,
    ) -> Verdict {
        let met: Vec<&Threshold> =
            thresholds.iter().filter(|t| t.is_met(seen, self.active.contains(&t.key()))).collect();
        self.since.retain(|key, _| met.iter().any(|t| t.key() == *key));
        for threshold in &met {
            self.since.entry(threshold.key()).or_insert(now);
            self.pressures.insert(pressure(threshold.signal), now);
        }
        self.pressures.retain(|_, at| now.duration_since(*at) < transition || *at == now);
        let lasted = |t: &&&Threshold| {
            let since = self.since.get(&t.key()).copied().unwrap_or(now);
            now.duration_since(since) >= t.grace.unwrap_or_default()
        };
        let due: Vec<&&Threshold> = met.iter().filter(lasted).collect();
        self.active = due.iter().map(|t| t.key()).collect();
        let shortage = |t: &&&Threshold| {
            let seen = seen.get(&t.signal).copied().unwrap_or(Observed { free: 0, all: 0 });
            Shortage {
                signal: t.signal,
                is_soft: t.grace.is_some(),
                threshold: t.least.of(seen.all),
                available: seen.free,
            }
        };
        Verdict {
            pressures: self.pressures.keys().copied().collect(),
            shortages: due.iter().map(shortage).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thresholds::Thresholds;

    fn memory(free: u64) -> Observations {
        BTreeMap::from([(Signal::Memory, Observed { free, all: 1000 })])
    }

    fn config(hard: &str, soft: &str) -> EvictionConfig {
        EvictionConfig {
            hard: hard.parse().unwrap(),
            soft: soft.parse().unwrap(),
            soft_grace: BTreeMap::from([(Signal::Memory, Duration::from_secs(60))]),
            minimum_reclaim: BTreeMap::from([(Signal::Memory, Amount::Bytes(50))]),
            ..EvictionConfig::default()
        }
    }

    fn soft(verdict: &Verdict) -> Vec<bool> {
        verdict.shortages.iter().map(|s| s.is_soft).collect()
    }

    const TRANSITION: Duration = Duration::from_secs(300);

    #[test]
    fn a_soft_threshold_is_pressure_at_once_and_ends_pods_later() {
        let all = thresholds(&config("memory.available<100", "memory.available<200"));
        let (mut judge, start) = (Judge::default(), Instant::now());
        let mut at = |seconds: u64, free| {
            judge.look(&all, &memory(free), TRANSITION, start + Duration::from_secs(seconds))
        };
        let seen = at(0, 150);
        assert_eq!((seen.pressures, seen.shortages), (vec![Pressure::Memory], vec![]));
        assert!(at(59, 150).shortages.is_empty());
        assert_eq!(soft(&at(60, 150)), [true]);
        assert_eq!(soft(&at(61, 90)), [false, true], "the hard one at once");
        // Above the threshold, and less than the minimum more is free.
        assert_eq!(soft(&at(62, 240)), [true]);
        assert!(at(63, 250).shortages.is_empty());
        // It begins anew.
        assert!(at(64, 150).shortages.is_empty());
        assert!(at(123, 150).shortages.is_empty());
        assert_eq!(soft(&at(124, 150)), [true]);
    }

    #[test]
    fn pressure_lasts_for_the_transition_period() {
        let all = thresholds(&config("memory.available<100", ""));
        let (mut judge, start) = (Judge::default(), Instant::now());
        let mut at = |seconds: u64, free| {
            let now = start + Duration::from_secs(seconds);
            judge.look(&all, &memory(free), TRANSITION, now).pressures
        };
        assert_eq!(at(0, 500), []);
        assert_eq!(at(1, 50), [Pressure::Memory]);
        assert_eq!(at(300, 500), [Pressure::Memory]);
        assert_eq!(at(301, 500), []);
    }

    #[test]
    fn every_signal_has_its_pressure() {
        let machine = Machine {
            memory_bytes: 1000,
            memory_available_bytes: 500,
            disk_bytes: 1000,
            disk_available_bytes: 120,
            inodes: 100,
            inodes_free: 50,
            pids_max: 100,
            pids: 95,
            ..Machine::default()
        };
        let of = |hard: Thresholds| pressures(&machine, &EvictionConfig::from(hard));
        assert_eq!(of("memory.available<600".parse().unwrap()), [Pressure::Memory]);
        assert_eq!(of("pid.available<10".parse().unwrap()), [Pressure::Pids]);
        assert_eq!(of("nodefs.available<10%".parse().unwrap()), []);
        assert_eq!(of("imagefs.available<15%".parse().unwrap()), [Pressure::Disk]);
        assert_eq!(of("nodefs.inodesFree<51%".parse().unwrap()), [Pressure::Disk]);
        assert_eq!(pressures(&Machine::default(), &EvictionConfig::default()), [], "nothing seen");
    }

    #[test]
    fn memory_comes_before_disk_and_hard_before_soft() {
        let shortage = |signal, is_soft| Shortage { signal, is_soft, threshold: 0, available: 0 };
        let mut all = [
            shortage(Signal::Pids, false),
            shortage(Signal::NodefsAvailable, false),
            shortage(Signal::Memory, true),
            shortage(Signal::Memory, false),
        ];
        all.sort_by_key(Shortage::order);
        assert_eq!((all[0].signal, all[0].is_soft), (Signal::Memory, false));
        assert_eq!(all[3].signal, Signal::Pids);
    }
}
