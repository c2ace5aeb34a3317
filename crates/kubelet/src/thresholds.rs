//! When a node is short of something: upstream's `--eviction-hard` and its defaults.

use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::spec::quantity::units;

/// So much, or such a part of all there is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Amount {
    Bytes(u64),
    Percent(f64),
}

/// Less than these available is pressure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    pub memory: Amount,
    pub disk: Amount,
    pub inodes: Amount,
}

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds {
            memory: Amount::Bytes(100 << 20),
            disk: Amount::Percent(10.0),
            inodes: Amount::Percent(5.0),
        }
    }
}

impl Thresholds {
    /// For a node that has its disk in common with much else: what others leave free is not the
    /// node's to keep, so only a disk that is all but full counts.
    pub fn shared() -> Thresholds {
        let disk = Amount::Bytes(1 << 30);
        Thresholds { disk, inodes: Amount::Percent(1.0), ..Thresholds::default() }
    }
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

    pub(crate) fn is_short(self, free: u64, all: u64) -> bool {
        all > 0 && free < self.of(all)
    }
}

/// `memory.available<100Mi,nodefs.available<10%`; what is not named keeps its default.
impl FromStr for Thresholds {
    type Err = String;

    fn from_str(text: &str) -> Result<Thresholds, String> {
        let mut all = Thresholds::default();
        for one in text.split(',').map(str::trim).filter(|one| !one.is_empty()) {
            let bad = || format!("{one:?} is not <signal><<quantity or percentage>");
            let (signal, value) = one.split_once('<').ok_or_else(bad)?;
            let amount = Amount::parse(value).ok_or_else(bad)?;
            match signal {
                "memory.available" => all.memory = amount,
                // Images and volumes are on one file system.
                "nodefs.available" | "imagefs.available" => all.disk = amount,
                "nodefs.inodesFree" | "imagefs.inodesFree" => all.inodes = amount,
                _ => return Err(format!("signal {signal:?} is not known to this node")),
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_keeps_its_default() {
        let parsed: Thresholds = "memory.available<1Gi,nodefs.inodesFree<2.5%".parse().unwrap();
        assert_eq!(parsed.memory, Amount::Bytes(1 << 30));
        assert_eq!(parsed.inodes, Amount::Percent(2.5));
        assert_eq!(parsed.disk, Thresholds::default().disk);
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for bad in ["memory.available", "memory.available<x", "nodefs.available<101%", "sun<1"] {
            assert!(bad.parse::<Thresholds>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_percentage_is_of_all() {
        assert!(Amount::Percent(10.0).is_short(9, 100));
        assert!(!Amount::Percent(10.0).is_short(10, 100));
        assert!(!Amount::Percent(10.0).is_short(0, 0), "nothing there is no shortage");
    }
}
