//! The process that holds the control plane dies last: when memory runs short, pods go before it.
//!
//! It has a cgroup of its own beside the nodes', with memory kept for it, and a score that makes the
//! kernel choose others. Pods share the rest of the machine's memory. Where the kernel or the
//! machine refuses one of these, the others still hold.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use runtime::cgroup::Hierarchies;

use super::ClusterPaths;

const ROOT: &str = "/sys/fs/cgroup";
/// Scores of the kernel's choice whom to kill when memory is out: kube-apiserver's static pods have
/// -997, and the kubelet of upstream -999.
const OOM_SCORE: &str = "-999";
/// Memory that is kept for the process: what the API server takes with some ten thousand pods.
const KEPT: u64 = 256 * 1024 * 1024;
/// Part of the machine's memory that pods may not take, at least [`KEPT`].
const RESERVED_PERCENT: u64 = 5;

/// The cgroup that this process was started in.
static FORMER: OnceLock<PathBuf> = OnceLock::new();

/// Applies everything to this process, before its nodes start.
pub(super) fn this_process(paths: &ClusterPaths) {
    listener::raise_open_files();
    note("oom_score_adj", std::fs::write("/proc/self/oom_score_adj", OOM_SCORE));
    let root = memory_root();
    let former = own_group(&root);
    let done = enter(&root, &format!("trireme/{}/system", paths.cgroup));
    if let (true, Some(former)) = (done.is_ok(), former) {
        FORMER.get_or_init(|| former);
    }
    note("own cgroup", done);
}

/// Goes back to the cgroup that this process came from, so that its own can be removed.
pub(super) fn leave() {
    if let Some(former) = FORMER.get() {
        note("former cgroup", std::fs::write(former.join("cgroup.procs"), "0"));
    }
}

/// This process's cgroup in the hierarchy that has memory.
fn own_group(root: &Path) -> Option<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let ours = match is_v1(root) {
            true => controllers.split(',').any(|one| one == "memory"),
            false => controllers.is_empty(),
        };
        ours.then(|| path.trim_start_matches('/').to_owned())
    })?;
    Some(root.join(path))
}

/// Limits what the pods of all nodes may take together. Called once the runtime has made the cgroups.
pub(super) fn limit_pods(paths: &ClusterPaths, nodes: usize) {
    let Some(limit) = pods_limit() else { return };
    let root = memory_root();
    for index in 0..nodes {
        let group = root.join("trireme").join(&paths.cgroup).join(index.to_string());
        let file = limit_file(&root, &group);
        // The runtime may have no cgroup there yet on a kernel without this controller.
        if file.exists() {
            note("memory of the pods", std::fs::write(file, limit.to_string()));
        }
    }
}

/// The machine's memory without what is reserved.
fn pods_limit() -> Option<u64> {
    let total = machine_memory()?;
    total.checked_sub(reserved_of(total)).filter(|left| *left > 0)
}

/// Bytes of the machine's memory that pods may not take: nodes do not offer them as allocatable.
pub(super) fn reserved_memory() -> u64 {
    machine_memory().map_or(0, reserved_of)
}

fn reserved_of(total: u64) -> u64 {
    KEPT.max(total / 100 * RESERVED_PERCENT)
}

fn machine_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// The hierarchy with memory: the one of version 2, or version 1's own.
fn memory_root() -> PathBuf {
    let v1 = Path::new(ROOT).join("memory");
    if v1.join("cgroup.procs").exists() { v1 } else { ROOT.into() }
}

fn is_v1(root: &Path) -> bool {
    root != Path::new(ROOT)
}

fn limit_file(root: &Path, group: &Path) -> PathBuf {
    group.join(if is_v1(root) { "memory.limit_in_bytes" } else { "memory.max" })
}

/// Moves this process into the group. The nodes' groups beside it have only the controllers that their
/// parents hand down, so on version 2 the runtime makes this one, too.
fn enter(root: &Path, path: &str) -> io::Result<()> {
    let group = root.join(path);
    if is_v1(root) {
        std::fs::create_dir_all(&group)?;
    } else {
        Hierarchies::unified_at(root).create(path).map_err(io::Error::other)?;
        note("memory kept", std::fs::write(group.join("memory.min"), KEPT.to_string()));
    }
    std::fs::write(group.join("cgroup.procs"), "0")
}

/// A protection that cannot be had is no reason not to start.
fn note(what: &str, done: io::Result<()>) {
    if let Err(error) = done {
        tracing::info!(what, %error, "the control plane goes without this protection");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_leave_memory_to_the_control_plane() {
        let text = std::fs::read_to_string("/proc/meminfo").expect("a machine has memory");
        let kib = text.lines().find_map(|l| l.strip_prefix("MemTotal:")).expect("a total");
        let total: u64 = kib.trim().trim_end_matches(" kB").parse().expect("a number");
        let limit = pods_limit().expect("a limit");
        assert!(limit + KEPT <= total * 1024);
    }
}
