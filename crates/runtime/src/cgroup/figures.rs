//! All that a group counts, for dashboards.

use std::fs;
use std::path::Path;

use super::Group;
use super::stats::{keyed, number, text};
use crate::figures::Figures;

/// `/proc` and v1 groups count CPU time in hundredths of a second (proc(5)).
const TICK_NS: u64 = 10_000_000;

/// The sum over all devices of what stands behind `key`: v1 has `8:0 Read 5`, v2 `8:0 rbytes=5`.
fn devices(text: &str, key: &str) -> u64 {
    let mut sum = 0;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        // The last line of v1, `Total 7`, has no device.
        if !words.next().is_some_and(|device| device.contains(':')) {
            continue;
        }
        while let Some(word) = words.next() {
            let value = match word.split_once('=') {
                Some((name, value)) => (name == key).then_some(value),
                None => (word == key).then(|| words.next()).flatten(),
            };
            sum += value.and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    sum
}

impl Group {
    /// Reads what is there; a missing file counts as zero.
    pub fn figures(&self) -> Figures {
        let stats = self.stats();
        let common = Figures {
            cpu_ns: stats.cpu_ns,
            memory: stats.memory,
            working_set: stats.working_set,
            rss: stats.rss,
            swap: stats.swap,
            page_faults: stats.page_faults,
            major_page_faults: stats.major_page_faults,
            pids: stats.pids,
            memory_limit: stats.memory_limit.unwrap_or(0),
            ..Figures::default()
        };
        if self.is_v2() { self.figures_v2(common) } else { self.figures_v1(common) }
    }

    fn figures_v1(&self, common: Figures) -> Figures {
        let (cpu, memory, blkio) =
            (self.v1_dir("cpu"), self.v1_dir("memory"), self.v1_dir("blkio"));
        let time = text(self.v1_dir("cpuacct"), "cpuacct.stat");
        let throttle = text(cpu, "cpu.stat");
        let stat = text(memory, "memory.stat");
        let io = text(blkio, "blkio.throttle.io_service_bytes");
        let ops = text(blkio, "blkio.throttle.io_serviced");
        // -1 is no quota, and no number here.
        let quota = number(cpu, "cpu.cfs_quota_us").unwrap_or(0);
        Figures {
            cpu_user_ns: keyed(&time, "user") * TICK_NS,
            cpu_system_ns: keyed(&time, "system") * TICK_NS,
            periods: keyed(&throttle, "nr_periods"),
            throttled_periods: keyed(&throttle, "nr_throttled"),
            throttled_ns: keyed(&throttle, "throttled_time"),
            cache: keyed(&stat, "total_cache"),
            mapped: keyed(&stat, "total_mapped_file"),
            peak: number(memory, "memory.max_usage_in_bytes").unwrap_or(0),
            failures: number(memory, "memory.failcnt").unwrap_or(0),
            reads: devices(&ops, "Read"),
            read_bytes: devices(&io, "Read"),
            writes: devices(&ops, "Write"),
            written_bytes: devices(&io, "Write"),
            cpu_shares: number(cpu, "cpu.shares").unwrap_or(0),
            cpu_quota: quota,
            cpu_period: number(cpu, "cpu.cfs_period_us").unwrap_or(0),
            ..common
        }
    }

    fn figures_v2(&self, common: Figures) -> Figures {
        let dir = self.unified_dir();
        let cpu = text(dir, "cpu.stat");
        let stat = text(dir, "memory.stat");
        let io = text(dir, "io.stat");
        let (quota, period) = limit(dir);
        Figures {
            cpu_user_ns: keyed(&cpu, "user_usec") * 1000,
            cpu_system_ns: keyed(&cpu, "system_usec") * 1000,
            periods: keyed(&cpu, "nr_periods"),
            throttled_periods: keyed(&cpu, "nr_throttled"),
            throttled_ns: keyed(&cpu, "throttled_usec") * 1000,
            cache: keyed(&stat, "file"),
            mapped: keyed(&stat, "file_mapped"),
            peak: number(dir, "memory.peak").unwrap_or(0),
            failures: keyed(&text(dir, "memory.events"), "max"),
            reads: devices(&io, "rios"),
            read_bytes: devices(&io, "rbytes"),
            writes: devices(&io, "wios"),
            written_bytes: devices(&io, "wbytes"),
            cpu_shares: number(dir, "cpu.weight").map_or(0, shares),
            cpu_quota: quota,
            cpu_period: period,
            ..common
        }
    }
}

/// `cpu.max` is `quota period`, the first `max` when there is none.
fn limit(dir: Option<&Path>) -> (u64, u64) {
    let text = dir.and_then(|d| fs::read_to_string(d.join("cpu.max")).ok()).unwrap_or_default();
    let mut words = text.split_whitespace();
    let mut next = || words.next().and_then(|w| w.parse().ok()).unwrap_or(0);
    (next(), next())
}

/// A weight as shares: the linear map that readers of these figures use (cAdvisor's).
fn shares(weight: u64) -> u64 {
    if weight == 0 { 0 } else { 2 + (weight - 1) * 262_142 / 9999 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_summed_in_both_forms() {
        let v1 = "8:0 Read 5\n8:0 Write 7\n8:16 Read 1\n8:16 Total 9\nTotal 13\n";
        assert_eq!((devices(v1, "Read"), devices(v1, "Write")), (6, 7));
        let v2 = "8:0 rbytes=5 wbytes=7 rios=1 wios=2\n8:16 rbytes=1\n";
        assert_eq!((devices(v2, "rbytes"), devices(v2, "wios")), (6, 2));
        assert_eq!((shares(1), shares(10_000), shares(0)), (2, 262_144, 0));
    }
}
