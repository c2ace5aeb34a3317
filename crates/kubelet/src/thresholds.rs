//! When a node is short of something: upstream's eviction signals, their thresholds and defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::spec::quantity::units;

/// What is watched. The order is that in which shortages are cured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    Memory,
    NodefsAvailable,
    NodefsInodesFree,
    ImagefsAvailable,
    ImagefsInodesFree,
    Pids,
}

impl Signal {
    const ALL: [Signal; 6] = [
        Signal::Memory,
        Signal::NodefsAvailable,
        Signal::NodefsInodesFree,
        Signal::ImagefsAvailable,
        Signal::ImagefsInodesFree,
        Signal::Pids,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Signal::Memory => "memory.available",
            Signal::NodefsAvailable => "nodefs.available",
            Signal::NodefsInodesFree => "nodefs.inodesFree",
            Signal::ImagefsAvailable => "imagefs.available",
            Signal::ImagefsInodesFree => "imagefs.inodesFree",
            Signal::Pids => "pid.available",
        }
    }
}

impl FromStr for Signal {
    type Err = String;

    fn from_str(text: &str) -> Result<Signal, String> {
        let found = Signal::ALL.into_iter().find(|signal| signal.name() == text);
        found.ok_or_else(|| format!("unsupported eviction signal {text}"))
    }
}

/// So much, or such a part of all there is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Amount {
    Bytes(u64),
    Percent(f64),
}

impl Amount {
    /// `100Mi`, or `10%`.
    pub fn parse(text: &str) -> Option<Amount> {
        match text.strip_suffix('%') {
            Some(part) => {
                let part = part.parse().ok().filter(|p| (0.0..=100.0).contains(p));
                part.map(Amount::Percent)
            }
            None => u64::try_from(units(&Quantity(text.to_owned()))?).ok().map(Amount::Bytes),
        }
    }

    /// As a number, of all there is.
    pub(crate) fn of(self, all: u64) -> u64 {
        match self {
            Amount::Bytes(bytes) => bytes,
            // Far from the limits of exactness, and a threshold needs none.
            Amount::Percent(part) => (all as f64 * part / 100.0) as u64,
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Amount::Bytes(bytes) => write!(f, "{bytes}"),
            Amount::Percent(part) => write!(f, "{part}%"),
        }
    }
}

/// Less than these available is pressure. A signal that is not there is not watched.
#[derive(Debug, Clone, PartialEq)]
pub struct Thresholds(BTreeMap<Signal, Amount>);

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds(BTreeMap::from([
            (Signal::Memory, Amount::Bytes(100 << 20)),
            (Signal::NodefsAvailable, Amount::Percent(10.0)),
            (Signal::NodefsInodesFree, Amount::Percent(5.0)),
            (Signal::ImagefsAvailable, Amount::Percent(15.0)),
            (Signal::ImagefsInodesFree, Amount::Percent(5.0)),
        ]))
    }
}

impl Thresholds {
    pub fn none() -> Thresholds {
        Thresholds(BTreeMap::new())
    }

    /// For a node that has its disk in common with much else: what others leave free is not the
    /// node's to keep, so only a disk that is all but full counts.
    pub fn shared() -> Thresholds {
        Thresholds(BTreeMap::from([
            (Signal::Memory, Amount::Bytes(100 << 20)),
            (Signal::NodefsAvailable, Amount::Bytes(1 << 30)),
            (Signal::NodefsInodesFree, Amount::Percent(1.0)),
        ]))
    }

    pub fn set(&mut self, signal: Signal, amount: Amount) {
        self.0.insert(signal, amount);
    }

    pub fn get(&self, signal: Signal) -> Option<Amount> {
        self.0.get(&signal).copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = (Signal, Amount)> {
        self.0.iter().map(|(signal, amount)| (*signal, *amount))
    }

    /// What is not named gets its default.
    #[must_use]
    pub fn with_defaults(mut self) -> Thresholds {
        for (signal, amount) in Thresholds::default().0 {
            self.0.entry(signal).or_insert(amount);
        }
        self
    }
}

/// `memory.available<100Mi,nodefs.available<10%`; what is not named is not watched.
impl FromStr for Thresholds {
    type Err = String;

    fn from_str(text: &str) -> Result<Thresholds, String> {
        let mut all = Thresholds::none();
        for (signal, value) in pairs(text, '<')? {
            // Upstream's way to say that the signal does not count.
            if matches!(value, "0%" | "100%") {
                continue;
            }
            let bad = || format!("eviction threshold {} must be positive: {value}", signal.name());
            let amount = Amount::parse(value).filter(|amount| *amount != Amount::Bytes(0));
            all.set(signal, amount.ok_or_else(bad)?);
        }
        Ok(all)
    }
}

fn pairs(text: &str, between: char) -> Result<Vec<(Signal, &str)>, String> {
    let mut found = Vec::new();
    for one in text.split(',').map(str::trim).filter(|one| !one.is_empty()) {
        let bad = || format!("{one:?} is not <signal>{between}<value>");
        let (signal, value) = one.split_once(between).ok_or_else(bad)?;
        found.push((signal.parse()?, value));
    }
    Ok(found)
}

/// When pods end for the node's sake.
#[derive(Debug, Clone, PartialEq)]
pub struct EvictionConfig {
    /// Pods end at once.
    pub hard: Thresholds,
    /// Pods end when it lasts.
    pub soft: Thresholds,
    /// How long it has to last; every signal of `soft` has one.
    pub soft_grace: BTreeMap<Signal, Duration>,
    /// So much more than the threshold must be free again.
    pub minimum_reclaim: BTreeMap<Signal, Amount>,
    /// A shortage that was seen counts as one for this long.
    pub transition: Duration,
    /// Longest grace of pods that end at a soft threshold, in seconds.
    pub max_pod_grace_seconds: i64,
}

impl Default for EvictionConfig {
    fn default() -> EvictionConfig {
        EvictionConfig {
            hard: Thresholds::default(),
            soft: Thresholds::none(),
            soft_grace: BTreeMap::new(),
            minimum_reclaim: BTreeMap::new(),
            transition: Duration::from_secs(300),
            max_pod_grace_seconds: 0,
        }
    }
}

impl From<Thresholds> for EvictionConfig {
    fn from(hard: Thresholds) -> EvictionConfig {
        EvictionConfig { hard, ..EvictionConfig::default() }
    }
}

impl EvictionConfig {
    /// `memory.available=1m30s,…`
    pub fn parse_graces(
        text: &str,
        duration: impl Fn(&str) -> Result<Duration, String>,
    ) -> Result<BTreeMap<Signal, Duration>, String> {
        let one = |(signal, value): (Signal, &str)| {
            let bad = |why| format!("invalid eviction grace period specified: {value}: {why}");
            Ok((signal, duration(value).map_err(bad)?))
        };
        pairs(text, '=')?.into_iter().map(one).collect()
    }

    /// `nodefs.available=500Mi,…`
    pub fn parse_reclaims(text: &str) -> Result<BTreeMap<Signal, Amount>, String> {
        let one = |(signal, value): (Signal, &str)| {
            let bad = || format!("{}: {value} is no quantity and no percentage", signal.name());
            Ok((signal, Amount::parse(value).ok_or_else(bad)?))
        };
        pairs(text, '=')?.into_iter().map(one).collect()
    }

    /// What does not go together is an error.
    pub fn check(&self) -> Result<(), String> {
        let without = |signal: &Signal| !self.soft_grace.contains_key(signal);
        match self.soft.0.keys().find(|signal| without(signal)) {
            Some(signal) => Err(format!(
                "grace period must be specified for the soft eviction threshold {}",
                signal.name()
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_is_not_watched_unless_defaults_are_asked_for() {
        let parsed: Thresholds = "memory.available<1Gi,nodefs.inodesFree<2.5%".parse().unwrap();
        assert_eq!(parsed.get(Signal::Memory), Some(Amount::Bytes(1 << 30)));
        assert_eq!(parsed.get(Signal::NodefsInodesFree), Some(Amount::Percent(2.5)));
        assert_eq!(parsed.get(Signal::NodefsAvailable), None);
        let all = parsed.with_defaults();
        assert_eq!(all.get(Signal::Memory), Some(Amount::Bytes(1 << 30)));
        assert_eq!(all.get(Signal::NodefsAvailable), Some(Amount::Percent(10.0)));
        let off: Thresholds = "memory.available<0%,pid.available<100%".parse().unwrap();
        assert_eq!(off, Thresholds::none());
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for bad in [
            "memory.available",
            "memory.available<x",
            "memory.available<0",
            "memory.available<-1",
            "nodefs.available<101%",
            "sun<1",
        ] {
            assert!(bad.parse::<Thresholds>().is_err(), "{bad}");
        }
        let said = "sun<1".parse::<Thresholds>().unwrap_err();
        assert_eq!(said, "unsupported eviction signal sun");
        let seconds =
            |text: &str| text.parse().map(Duration::from_secs).map_err(|_| "bad".to_owned());
        assert!(EvictionConfig::parse_graces("memory.available=x", seconds).is_err());
        assert!(EvictionConfig::parse_reclaims("memory.available=x").is_err());
    }

    #[test]
    fn a_soft_threshold_needs_its_grace_period() {
        let soft = "memory.available<1Gi".parse().unwrap();
        let mut config = EvictionConfig { soft, ..EvictionConfig::default() };
        let said =
            "grace period must be specified for the soft eviction threshold memory.available";
        assert_eq!(config.check(), Err(said.to_owned()));
        config.soft_grace = BTreeMap::from([(Signal::Memory, Duration::from_secs(90))]);
        assert_eq!(config.check(), Ok(()));
    }

    #[test]
    fn a_percentage_is_of_all() {
        assert_eq!(Amount::Percent(10.0).of(100), 10);
        assert_eq!(Amount::Bytes(7).of(100), 7);
    }
}
