//! What the machine is and has, read from `/proc`, `/sys` and `/etc`.

use std::path::Path;

#[derive(Debug, Clone, Default)]
pub(crate) struct Machine {
    pub(crate) cpus: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) memory_available_bytes: u64,
    pub(crate) memory_free_bytes: u64,
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
        cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
        memory_bytes: field("MemTotal"),
        memory_available_bytes: field("MemAvailable"),
        memory_free_bytes: field("MemFree"),
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
    use super::stat;

    #[test]
    fn cpu_time_is_all_but_idle_and_waiting() {
        let (busy, booted) = stat("cpu  1 2 4 1000 1000 8 16 32 64 64\ncpu0 1\nbtime 100\n");
        assert_eq!(busy, 63 * 10_000_000);
        assert_eq!(booted.map(|t| t.as_second()), Some(100));
    }
}
