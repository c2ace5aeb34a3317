//! Use of CPU, memory, processes and swap, read from a group's files.

use std::fs;
use std::path::Path;

use super::Group;

/// What a group has used and uses; bytes and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupStats {
    pub cpu_ns: u64,
    pub memory: u64,
    /// Memory less what could be dropped at once (inactive page cache).
    pub working_set: u64,
    pub rss: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    /// `None`: no limit.
    pub memory_limit: Option<u64>,
    pub swap: u64,
    pub pids: u64,
}

/// v1 tells "no limit" as the largest number of pages: everything near it means the same.
const V1_NO_LIMIT: u64 = 1 << 62;

pub(super) fn number(dir: Option<&Path>, file: &str) -> Option<u64> {
    fs::read_to_string(dir?.join(file)).ok()?.trim().parse().ok()
}

/// A value of a `key value` file.
pub(super) fn keyed(text: &str, key: &str) -> u64 {
    let value = |l: &str| l.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(value).unwrap_or(0)
}

pub(super) fn text(dir: Option<&Path>, file: &str) -> String {
    dir.and_then(|d| fs::read_to_string(d.join(file)).ok()).unwrap_or_default()
}

impl Group {
    /// Reads what is there; a missing file counts as zero (the group may just be ending).
    pub fn stats(&self) -> GroupStats {
        if self.is_v2() { self.stats_v2() } else { self.stats_v1() }
    }

    fn stats_v1(&self) -> GroupStats {
        let memory_dir = self.v1_dir("memory");
        let stat = text(memory_dir, "memory.stat");
        let memory = number(memory_dir, "memory.usage_in_bytes").unwrap_or(0);
        let with_swap = number(memory_dir, "memory.memsw.usage_in_bytes").unwrap_or(memory);
        GroupStats {
            cpu_ns: number(self.v1_dir("cpuacct"), "cpuacct.usage").unwrap_or(0),
            memory,
            working_set: memory.saturating_sub(keyed(&stat, "total_inactive_file")),
            rss: keyed(&stat, "total_rss"),
            page_faults: keyed(&stat, "total_pgfault"),
            major_page_faults: keyed(&stat, "total_pgmajfault"),
            memory_limit: number(memory_dir, "memory.limit_in_bytes").filter(|l| *l < V1_NO_LIMIT),
            swap: with_swap.saturating_sub(memory),
            pids: number(self.v1_dir("pids"), "pids.current").unwrap_or(0),
        }
    }

    fn stats_v2(&self) -> GroupStats {
        let dir = self.unified_dir();
        let stat = text(dir, "memory.stat");
        let memory = number(dir, "memory.current").unwrap_or(0);
        GroupStats {
            cpu_ns: keyed(&text(dir, "cpu.stat"), "usage_usec") * 1000,
            memory,
            working_set: memory.saturating_sub(keyed(&stat, "inactive_file")),
            rss: keyed(&stat, "anon"),
            page_faults: keyed(&stat, "pgfault"),
            major_page_faults: keyed(&stat, "pgmajfault"),
            memory_limit: number(dir, "memory.max"),
            swap: number(dir, "memory.swap.current").unwrap_or(0),
            pids: number(dir, "pids.current").unwrap_or(0),
        }
    }
}
