//! What may outlive a cluster's process, and is removed when the cluster goes down: cgroups that
//! are empty, and a supervisor that was started while its cgroup was being ended.

use std::path::Path;

use super::ClusterPaths;

const CGROUPS: &str = "/sys/fs/cgroup";

/// Removes the cluster's empty cgroups from every hierarchy, and the common parent when it is the
/// last one. Those in use stay: removing a cgroup with members fails.
pub(super) fn remove_cgroups(name: &str) {
    let mut roots = vec![Path::new(CGROUPS).to_owned()];
    let hierarchies = std::fs::read_dir(CGROUPS).into_iter().flatten().flatten();
    roots.extend(hierarchies.map(|entry| entry.path()));
    for root in roots {
        for group in [format!("trireme/{name}"), "trireme".to_owned()] {
            // An error means that it is in use or was never there.
            std::fs::remove_dir(root.join(group)).unwrap_or_default();
        }
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
        }
    }
}
