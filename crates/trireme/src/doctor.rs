//! `trireme doctor`: what the machine lacks for a cluster, and how to mend it. `up` asks the same
//! questions and refuses with the same words.

mod lockouts;

use std::path::Path;

use anyhow::{Result, bail};

/// One thing that must be so.
struct Check {
    what: &'static str,
    holds: fn() -> bool,
    remedy: &'static str,
}

const CHECKS: [Check; 6] = [
    Check {
        what: "root rights",
        holds: || rustix::process::geteuid().is_root(),
        remedy: "run it with sudo: network namespaces and mounts need root",
    },
    Check {
        what: "cgroups",
        holds: has_cgroups,
        remedy: "mount the cgroup2 file system at /sys/fs/cgroup (`mount -t cgroup2 none /sys/fs/cgroup`)",
    },
    Check {
        what: "overlay file system",
        holds: || file_system("overlay"),
        remedy: "load the kernel's overlay module: `modprobe overlay`",
    },
    Check {
        what: "network namespaces",
        holds: || Path::new("/proc/self/ns/net").exists(),
        remedy: "boot a kernel built with CONFIG_NET_NS",
    },
    Check {
        what: "/proc/sys writable",
        holds: || {
            std::fs::OpenOptions::new().write(true).open("/proc/sys/net/ipv4/ip_forward").is_ok()
        },
        remedy: "inside a container, start it privileged: forwarding has to be switched on in the node's namespace",
    },
    Check {
        what: "seccomp filters",
        holds: || Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
        remedy: "boot a kernel built with CONFIG_SECCOMP_FILTER",
    },
];

fn has_cgroups() -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|l| l.split(' ').nth(2).is_some_and(|fs| fs == "cgroup2" || fs == "cgroup"))
}

fn file_system(name: &str) -> bool {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    known.lines().any(|l| l.split_whitespace().last() == Some(name))
}

/// Prints every check, and what the webhooks of a running cluster may do to it; fails when a check does not hold.
pub(crate) fn doctor(kubeconfig: Option<&Path>) -> Result<()> {
    for check in &CHECKS {
        match (check.holds)() {
            true => println!("ok       {}", check.what),
            false => println!("MISSING  {}: {}", check.what, check.remedy),
        }
    }
    require()?;
    kubeconfig.map_or(Ok(()), lockouts::check)
}

/// Refuses with the remedies of what is missing.
pub(crate) fn require() -> Result<()> {
    let missing: Vec<String> = CHECKS
        .iter()
        .filter(|c| !(c.holds)())
        .map(|c| format!("{}: {}", c.what, c.remedy))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    bail!("this machine lacks:\n  {}", missing.join("\n  "))
}
