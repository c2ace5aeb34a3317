//! How often each probe had which result, and how long it took: `/metrics/probes`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Upper bounds of the histogram's buckets, in seconds (Prometheus' usual ones).
pub(crate) const BOUNDS: [f64; 11] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Which probe of which container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Probed {
    pub(crate) pod_uid: String,
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) container: String,
    pub(crate) kind: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Result {
    Successful,
    Failed,
    Unknown,
}

/// The results of one probe.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Count {
    pub(crate) successful: u64,
    pub(crate) failed: u64,
    pub(crate) unknown: u64,
    /// Of successful and failed ones: how many took no longer than each bound, and all their seconds.
    pub(crate) buckets: [u64; BOUNDS.len()],
    pub(crate) seconds: f64,
}

impl Count {
    pub(crate) fn timed(&self) -> u64 {
        self.successful + self.failed
    }
}

/// All probes of the node's pods.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    known: Mutex<BTreeMap<Probed, Count>>,
}

impl Counts {
    fn known(&self) -> MutexGuard<'_, BTreeMap<Probed, Count>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, probed: Probed, result: Result, took: Duration) {
        let mut known = self.known();
        let count = known.entry(probed).or_default();
        match result {
            Result::Successful => count.successful += 1,
            Result::Failed => count.failed += 1,
            Result::Unknown => {
                count.unknown += 1;
                return;
            }
        }
        let seconds = took.as_secs_f64();
        count.seconds += seconds;
        for (bucket, bound) in count.buckets.iter_mut().zip(BOUNDS) {
            *bucket += u64::from(seconds <= bound);
        }
    }

    pub(crate) fn forget(&self, pod_uid: &str) {
        self.known().retain(|probed, _| probed.pod_uid != pod_uid);
    }

    pub(crate) fn all(&self) -> Vec<(Probed, Count)> {
        self.known().iter().map(|(p, c)| (p.clone(), c.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_counted_until_the_pod_is_gone() {
        let probed = |uid: &str| Probed {
            pod_uid: uid.into(),
            namespace: "ns".into(),
            pod: "p".into(),
            container: "c".into(),
            kind: "Liveness",
        };
        let counts = Counts::default();
        counts.add(probed("a"), Result::Successful, Duration::from_millis(20));
        counts.add(probed("a"), Result::Failed, Duration::from_secs(20));
        counts.add(probed("a"), Result::Unknown, Duration::ZERO);
        counts.add(probed("b"), Result::Failed, Duration::ZERO);
        let all = counts.all();
        let first = &all[0].1;
        assert_eq!((first.successful, first.failed, first.unknown, first.timed()), (1, 1, 1, 2));
        assert_eq!(first.buckets, [0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        counts.forget("a");
        assert_eq!(counts.all().len(), 1);
    }
}
