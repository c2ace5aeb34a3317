//! What may outlive a cluster's process, and is removed when the cluster goes down: cgroups that
//! are empty, and a supervisor that was started while its cgroup was being ended.

use std::path::Path;

use super::ClusterPaths;

const CGROUPS: &str = "/sys/fs/cgroup";
/// A killed process is gone within milliseconds, unless the machine itself stands still.
const ENDED_MAX: std::time::Duration = std::time::Duration::from_secs(2);

/// Removes the cluster's empty cgroups from every hierarchy, and the common parent when it is the
/// last one. Those in use stay: removing a cgroup with members fails.
pub(super) fn remove_cgroups(name: &str) {
    let mut roots = vec![Path::new(CGROUPS).to_owned()];
    let hierarchies = std::fs::read_dir(CGROUPS).into_iter().flatten().flatten();
    roots.extend(hierarchies.map(|entry| entry.path()));
    for root in roots {
        remove_tree(&root.join("trireme").join(name));
        // Other clusters' groups keep the parent.
        std::fs::remove_dir(root.join("trireme")).unwrap_or_default();
    }
}

/// Removes a cgroup after those below it. One that is in use stays, or was never there.
fn remove_tree(group: &Path) {
    let below = std::fs::read_dir(group).into_iter().flatten().flatten();
    for child in below.map(|entry| entry.path()).filter(|path| path.is_dir()) {
        remove_tree(&child);
    }
    std::fs::remove_dir(group).unwrap_or_default();
}

/// Waits until a killed process has left its cgroups; a moment, as nothing can hold it up.
fn wait_ended(pid: rustix::process::Pid) {
    let start = std::time::Instant::now();
    while rustix::process::test_kill_process(pid).is_ok() && start.elapsed() < ENDED_MAX {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// Ends supervisors whose state lies in the cluster's folder.
pub(super) fn end_supervisors(paths: &ClusterPaths) {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for entry in processes {
        let pid = entry.file_name().to_str().and_then(|n| n.parse().ok());
        let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|b| *b == 0).collect();
        let state =
            words.iter().position(|w| *w == b"--state-dir").and_then(|at| words.get(at + 1));
        let ours = state
            .is_some_and(|dir| Path::new(&*String::from_utf8_lossy(dir)).starts_with(&paths.root));
        if ours && words.get(1) == Some(&b"supervisor".as_slice()) {
            // It may have ended by itself meanwhile.
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap_or_default();
            wait_ended(pid);
        }
    }
}
