//! What the machine is and has, read from `/proc`, `/sys` and `/etc`.

use std::path::Path;

#[derive(Debug, Clone, Default)]
pub(crate) struct Machine {
    pub(crate) cpus: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) memory_available_bytes: u64,
    pub(crate) disk_bytes: u64,
    pub(crate) disk_available_bytes: u64,
    pub(crate) inodes: u64,
    pub(crate) inodes_free: u64,
    pub(crate) pids_max: u64,
    pub(crate) pids: u64,
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
    let disk = rustix::fs::statvfs(existing).ok();
    let blocks =
        |of: fn(&rustix::fs::StatVfs) -> u64| disk.as_ref().map_or(0, |d| of(d) * d.f_frsize);
    Machine {
        cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
        memory_bytes: field("MemTotal"),
        memory_available_bytes: field("MemAvailable"),
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
