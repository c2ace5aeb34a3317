//! How many pods are in each domain, and which count is the least.

use std::collections::BTreeMap;

/// Counts by domain number; a domain takes part while it is open.
#[derive(Debug, Clone, Default)]
pub(crate) struct DomainCounts {
    /// By domain number; the flag says whether the domain is open.
    counts: Vec<(i64, bool)>,
    /// How many open domains have each count.
    histogram: BTreeMap<i64, usize>,
    open: usize,
    total: i64,
}

impl DomainCounts {
    pub(crate) fn open(&mut self, domain: u32) {
        let at = self.reach(domain);
        if !std::mem::replace(&mut self.counts[at].1, true) {
            self.open += 1;
            let count = self.counts[at].0;
            self.total += count;
            *self.histogram.entry(count).or_insert(0) += 1;
        }
    }

    pub(crate) fn close(&mut self, domain: u32) {
        let at = self.reach(domain);
        if std::mem::replace(&mut self.counts[at].1, false) {
            self.open -= 1;
            let count = self.counts[at].0;
            self.total -= count;
            self.leave(count);
        }
    }

    pub(crate) fn add(&mut self, domain: u32, amount: i64) {
        let at = self.reach(domain);
        let (count, open) = self.counts[at];
        self.counts[at].0 = count + amount;
        if open {
            self.total += amount;
            self.leave(count);
            *self.histogram.entry(count + amount).or_insert(0) += 1;
        }
    }

    pub(crate) fn get(&self, domain: u32) -> i64 {
        self.counts.get(domain as usize).filter(|(_, open)| *open).map_or(0, |(count, _)| *count)
    }

    pub(crate) fn is_open(&self, domain: u32) -> bool {
        self.counts.get(domain as usize).is_some_and(|(_, open)| *open)
    }

    /// Open domains.
    pub(crate) fn len(&self) -> usize {
        self.open
    }

    /// The sum over open domains.
    pub(crate) fn total(&self) -> i64 {
        self.total
    }

    /// The least count of an open domain, if the counts were changed by `changes` (domain, amount).
    pub(crate) fn least_with(&self, changes: &[(u32, i64)]) -> Option<i64> {
        let changed = changes.iter().filter(|(domain, _)| self.is_open(*domain));
        let ahead = changed.clone().map(|(domain, amount)| self.get(*domain) + amount).min();
        let behind = self.histogram.iter().find(|(count, domains)| {
            let moved = changed.clone().filter(|(domain, _)| self.get(*domain) == **count).count();
            **domains > moved
        });
        let behind = behind.map(|(count, _)| *count);
        match (ahead, behind) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    fn leave(&mut self, count: i64) {
        if let Some(domains) = self.histogram.get_mut(&count) {
            *domains -= 1;
            if *domains == 0 {
                self.histogram.remove(&count);
            }
        }
    }

    fn reach(&mut self, domain: u32) -> usize {
        let at = domain as usize;
        if self.counts.len() <= at {
            self.counts.resize(at + 1, (0, false));
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_follows_changes_and_closing() {
        let mut counts = DomainCounts::default();
        assert_eq!(counts.least_with(&[]), None);
        for (domain, amount) in [(0, 3), (1, 1), (2, 1)] {
            counts.open(domain);
            counts.add(domain, amount);
        }
        assert_eq!((counts.len(), counts.total(), counts.least_with(&[])), (3, 5, Some(1)));
        // One of two least domains grows: the other is the least still.
        assert_eq!(counts.least_with(&[(1, 5)]), Some(1));
        assert_eq!(counts.least_with(&[(1, 5), (2, 1)]), Some(2));
        assert_eq!(counts.least_with(&[(0, -3)]), Some(0));
        counts.close(1);
        counts.close(2);
        assert_eq!((counts.least_with(&[]), counts.get(1), counts.total()), (Some(3), 0, 3));
        // Counts of a closed domain are kept for when it opens again.
        counts.add(1, 1);
        counts.open(1);
        assert_eq!((counts.get(1), counts.least_with(&[])), (2, Some(2)));
    }
}
