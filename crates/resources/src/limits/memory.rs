//! The process refuses new work before it takes more memory than it should: whatever no single limit
//! foresaw ends in 429 for some, not in the end of everything.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How old a look at the process's memory may be. A look costs some microseconds.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct MemoryGuard {
    /// Resident bytes from which new requests are refused; 0 is no limit.
    limit: u64,
    started: Instant,
    /// Milliseconds after `started` at which to look again.
    due: AtomicU64,
    is_over: AtomicBool,
}

impl MemoryGuard {
    pub(super) fn new(limit: u64) -> MemoryGuard {
        MemoryGuard {
            limit,
            started: Instant::now(),
            due: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    /// Whether the process takes too much memory right now.
    pub(super) fn is_over(&self) -> bool {
        if self.limit == 0 {
            return false;
        }
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let due = self.due.load(Ordering::Relaxed);
        let next = now + LOOK.as_millis() as u64;
        let mine = now >= due
            && self.due.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if mine {
            let over = resident().is_some_and(|bytes| bytes >= self.limit);
            if over != self.is_over.swap(over, Ordering::Relaxed) {
                tracing::warn!(over, limit = self.limit, "memory limit of the API server");
            }
        }
        self.is_over.load(Ordering::Relaxed)
    }
}

/// Resident bytes of this process.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * u64::try_from(rustix::param::page_size()).ok()?)
}

/// The default limit: four fifths of what the process's cgroups allow it, or half of the machine's
/// memory.
pub(super) fn default_limit() -> u64 {
    let machine = machine_memory().map_or(0, |bytes| bytes / 2);
    match cgroup_limit().filter(|limit| *limit / 5 * 4 < machine) {
        Some(limit) => limit / 5 * 4,
        None => machine,
    }
}

fn machine_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The smallest limit of this process's memory cgroup and those above it, on version 1 or 2.
fn cgroup_limit() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let limits = own.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (controllers, path) = (parts.nth(1)?, parts.next()?);
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|one| one == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let path = std::path::Path::new(path.trim_start_matches('/'));
        path.ancestors()
            .filter_map(|below| limit_in(&std::path::Path::new(root).join(below).join(file)))
            .min()
    });
    limits.min()
}

fn limit_in(file: &std::path::Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_below_what_is_used_is_exceeded() {
        assert!(MemoryGuard::new(1).is_over());
        assert!(!MemoryGuard::new(u64::MAX).is_over());
        assert!(!MemoryGuard::new(0).is_over());
        assert!(default_limit() > 0);
    }
}
