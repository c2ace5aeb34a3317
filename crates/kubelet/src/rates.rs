//! CPU time as a rate: what was used between two looks.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Shortest time between two looks that a rate is made of, in nanoseconds.
const SPAN_MIN: i64 = 1_000_000_000;
/// What nobody has looked at for so long is forgotten.
const FORGET: i64 = 600 * 1_000_000_000;

#[derive(Debug, Clone, Copy)]
struct Look {
    at: i64,
    total: u64,
    rate: Option<u64>,
}

/// The last look at each thing that uses CPU time.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    looks: Mutex<HashMap<String, Look>>,
}

impl Rates {
    /// Notes a total in nanoseconds; returns nanoseconds a second, once there are two looks.
    pub(crate) fn note(&self, what: &str, at: i64, total: u64) -> Option<u64> {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = looks.get_mut(what) else {
            looks.retain(|_, look| at - look.at < FORGET);
            looks.insert(what.to_owned(), Look { at, total, rate: None });
            return None;
        };
        let span = at - last.at;
        if span < SPAN_MIN {
            return last.rate;
        }
        let used = u128::from(total.saturating_sub(last.total));
        let rate = used * 1_000_000_000 / span.unsigned_abs() as u128;
        *last = Look { at, total, rate: u64::try_from(rate).ok() };
        last.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_two_looks_that_are_apart() {
        let rates = Rates::default();
        let second = 1_000_000_000;
        assert_eq!(rates.note("a", 0, 100), None);
        assert_eq!(rates.note("a", 10, 200), None, "too near");
        assert_eq!(rates.note("a", 2 * second, 100 + 3_000_000_000), Some(1_500_000_000));
        assert_eq!(rates.note("a", 2 * second + 1, u64::MAX), Some(1_500_000_000));
        // A counter that began anew is no negative rate.
        assert_eq!(rates.note("a", 4 * second, 0), Some(0));
        assert_eq!(rates.note("b", FORGET * 2, 0), None);
        assert_eq!(rates.looks.lock().unwrap().len(), 1, "what nobody looks at is forgotten");
    }
}
