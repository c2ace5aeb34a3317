//! What the machine is and has, read from `/proc`, `/sys` and `/etc`.

use std::path::Path;

#[derive(Debug, Clone, Default)]
pub(crate) struct Machine {
    pub(crate) cpu_millis: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) memory_available_bytes: u64,
    pub(crate) memory_free_bytes: u64,
    pub(crate) swap_bytes: u64,
    pub(crate) disk_bytes: u64,
    pub(crate) disk_available_bytes: u64,
    pub(crate) inodes: u64,
    pub(crate) inodes_free: u64,
    pub(crate) pids_max: u64,
    pub(crate) pids: u64,
    /// CPU time of everything since boot.
    pub(crate) cpu_nanos: u64,
    pub(crate) booted: Option<jiff::Timestamp>,
}

/// A node's part of a machine that it shares with other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    pub storage_bytes: u64,
}

impl Capacity {
    /// An equal part of this machine for each of so many nodes.
    pub fn divided(nodes: u32, dir: &Path) -> Capacity {
        let (machine, nodes) = (machine(dir), u64::from(nodes.max(1)));
        Capacity {
            cpu_millis: machine.cpu_millis / nodes,
            memory_bytes: machine.memory_bytes / nodes,
            storage_bytes: machine.disk_bytes / nodes,
        }
    }
}

impl Machine {
    /// The machine as a node sees it that has a part of it, and whose pods use `used` bytes of memory:
    /// what the other nodes' pods use is not this node's shortage, as long as the machine has enough.
    pub(crate) fn part(mut self, of: Option<Capacity>, used: u64) -> Machine {
        let Some(of) = of else { return self };
        self.cpu_millis = self.cpu_millis.min(of.cpu_millis);
        self.memory_bytes = self.memory_bytes.min(of.memory_bytes);
        let left = self.memory_bytes.saturating_sub(used);
        self.memory_available_bytes = self.memory_available_bytes.min(left);
        self.memory_free_bytes = self.memory_free_bytes.min(left);
        self
    }
}

/// `/proc/stat` counts in hundredths of a second, whatever the kernel's own clock is (proc(5)).
const TICK_NANOS: u64 = 10_000_000;

/// CPU time and boot time out of `/proc/stat`.
fn stat(text: &str) -> (u64, Option<jiff::Timestamp>) {
    let line = |name: &str| text.lines().find_map(|l| l.strip_prefix(name));
    let ticks: Vec<u64> = line("cpu ")
        .into_iter()
        .flat_map(str::split_whitespace)
        .filter_map(|n| n.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal: the fourth and fifth are rest.
    let busy = ticks.iter().take(8).enumerate().filter(|(i, _)| !(3..5).contains(i));
    let booted = line("btime ").and_then(|s| s.trim().parse().ok());
    (
        busy.map(|(_, n)| n * TICK_NANOS).sum(),
        booted.and_then(|s| jiff::Timestamp::from_second(s).ok()),
    )
}

pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// `dir` is on the file system whose space counts.
pub(crate) fn machine(dir: &Path) -> Machine {
    let memory = read("/proc/meminfo");
    let field = |name: &str| {
        let line = memory.lines().find_map(|l| l.strip_prefix(name));
        let kib = line.and_then(|l| l.trim_start_matches(':').split_whitespace().next());
        kib.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    // The directory may not exist yet.
    let existing = dir.ancestors().find(|d| d.exists()).unwrap_or(Path::new("/"));
    let (cpu_nanos, booted) = stat(&read("/proc/stat"));
    let disk = rustix::fs::statvfs(existing).ok();
    let blocks =
        |of: fn(&rustix::fs::StatVfs) -> u64| disk.as_ref().map_or(0, |d| of(d) * d.f_frsize);
    Machine {
        cpu_millis: 1000 * std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
        memory_bytes: field("MemTotal"),
        memory_available_bytes: field("MemAvailable"),
        memory_free_bytes: field("MemFree"),
        swap_bytes: field("SwapTotal"),
        disk_bytes: blocks(|d| d.f_blocks),
        disk_available_bytes: blocks(|d| d.f_bavail),
        inodes: disk.as_ref().map_or(0, |d| d.f_files),
        inodes_free: disk.as_ref().map_or(0, |d| d.f_ffree),
        pids_max: read("/proc/sys/kernel/pid_max").parse().unwrap_or(0),
        // `loadavg` is `… running/total last`.
        pids: read("/proc/loadavg")
            .split_whitespace()
            .nth(3)
            .and_then(|w| w.split('/').nth(1))
            .and_then(|n| n.parse().ok())
            .unwrap_or(0),
        cpu_nanos,
        booted,
    }
}

/// As Go names it.
pub(crate) fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub(crate) fn os_image() -> String {
    let text = read("/etc/os-release");
    let line = text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    line.unwrap_or("Linux").trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_machine_is_short_by_its_own_pods_only() {
        let all = Machine {
            cpu_millis: 4000,
            memory_bytes: 1000,
            memory_available_bytes: 600,
            memory_free_bytes: 500,
            ..Machine::default()
        };
        let of = Some(Capacity { cpu_millis: 1500, memory_bytes: 400, storage_bytes: 1 });
        let seen = |used| {
            let part = all.clone().part(of, used);
            (part.cpu_millis, part.memory_bytes, part.memory_available_bytes)
        };
        assert_eq!(seen(0), (1500, 400, 400));
        assert_eq!(seen(350), (1500, 400, 50));
        assert_eq!(seen(9999), (1500, 400, 0));
        let short = Machine { memory_available_bytes: 10, ..all.clone() };
        assert_eq!(short.part(of, 0).memory_available_bytes, 10, "the machine itself is short");
        assert_eq!(all.part(None, 9999).memory_available_bytes, 600);
    }

    #[test]
    fn cpu_time_is_all_but_idle_and_waiting() {
        let (busy, booted) = stat("cpu  1 2 4 1000 1000 8 16 32 64 64\ncpu0 1\nbtime 100\n");
        assert_eq!(busy, 63 * 10_000_000);
        assert_eq!(booted.map(|t| t.as_second()), Some(100));
    }
}
