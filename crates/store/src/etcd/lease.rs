//! Leases for keys that go by themselves, shared by keys that were put at about the same time: a
//! lease costs etcd more than a key does (apiserver `storage/etcd3/lease_manager.go`).

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::grpc::{CallError, Channel};

/// How much longer than it asked for a key may live, so that others may share its lease: this part
/// of its lifetime, and no more than this.
const SHARED_PART: u64 = 20;
const SHARED_MAX: u64 = 60;
/// Keys on one lease at most: etcd deletes them in one transaction.
const KEYS_MAX: u32 = 1000;

/// The last lease of each lifetime.
#[derive(Debug, Default)]
pub(super) struct Leases(Mutex<BTreeMap<u64, Lease>>);

#[derive(Debug, Clone, Copy)]
struct Lease {
    id: i64,
    ends: Instant,
    keys: u32,
}

/// Seconds that a key of this lifetime may live longer.
fn shared(seconds: u64) -> u64 {
    (seconds / SHARED_PART).min(SHARED_MAX)
}

impl Lease {
    /// May another key of this lifetime go with it?
    fn suits(&self, now: Instant, seconds: u64) -> bool {
        let within = |more: u64| now + Duration::from_secs(seconds + more);
        self.keys < KEYS_MAX && within(0) < self.ends && within(shared(seconds)) >= self.ends
    }
}

impl Leases {
    /// A lease that ends after `lifetime`, or a little later.
    pub(super) async fn of(&self, etcd: &Channel, lifetime: Duration) -> Result<i64, CallError> {
        let seconds = lifetime.as_secs().max(1);
        let mut leases = self.0.lock().await;
        let now = Instant::now();
        if let Some(lease) = leases.get_mut(&seconds).filter(|l| l.suits(now, seconds)) {
            lease.keys += 1;
            return Ok(lease.id);
        }
        let granted = seconds + shared(seconds);
        let id = etcd.grant(granted).await?;
        let ends = now + Duration::from_secs(granted);
        leases.insert(seconds, Lease { id, ends, keys: 1 });
        Ok(id)
    }

    /// A lease is gone before its time: nobody shall be given it again.
    pub(super) async fn forget(&self, id: i64) {
        self.0.lock().await.retain(|_, lease| lease.id != id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::Lease;

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_shared_for_a_twentieth_of_its_time_and_a_minute_at_most() {
        let start = Instant::now();
        let lease = |seconds| Lease { id: 1, ends: start + Duration::from_secs(seconds), keys: 1 };
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(lease(3660).suits(at(59), 3600));
        assert!(!lease(3660).suits(at(60), 3600));
        assert!(lease(105).suits(at(4), 100) && !lease(105).suits(at(5), 100));
        assert!(!lease(15).suits(at(0), 15), "short ones are never shared");
        assert!(!Lease { keys: 1000, ..lease(3660) }.suits(at(1), 3600));
        assert!(!lease(9000).suits(at(0), 3600), "it would live far too long");
    }
}
