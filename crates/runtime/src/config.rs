//! What the embedded runtime must be told at construction.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// How long registries may take.
#[derive(Clone, Copy, Debug)]
pub struct PullLimits {
    /// To connect and shake hands.
    pub connect: Duration,
    /// For an answer's head, and for the whole of a small document.
    pub answer: Duration,
    /// For the next [`PullLimits::LEAST`] bytes of a layer.
    pub stall: Duration,
    /// The first pause between two tries; it doubles.
    pub retry_pause: Duration,
    /// The longest `Retry-After` that is waited for.
    pub retry_after: Duration,
}

impl PullLimits {
    /// Bytes of a layer that must come in the time of a stall: a trickle is one.
    pub const LEAST: u64 = 4096;
}

impl Default for PullLimits {
    fn default() -> Self {
        PullLimits {
            connect: Duration::from_secs(15),
            answer: Duration::from_secs(60),
            stall: Duration::from_secs(30),
            retry_pause: Duration::from_millis(200),
            retry_after: Duration::from_secs(30),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Config {
    /// Images and containers' writable layers; survives a reboot. Must not lie on an overlay file system.
    pub root: PathBuf,
    /// Namespace pins, sockets, exit statuses: what a reboot voids. Becomes a private mount.
    pub state_dir: PathBuf,
    /// The network namespace that host-network sandboxes join; `None`: the one the process is in.
    pub node_netns: Option<PathBuf>,
    /// Where containers of sandboxes without a cgroup parent of their own go, e.g. `/trireme`.
    pub cgroup_parent: String,
    /// Mount point of the cgroup hierarchies; tests may point it elsewhere.
    pub cgroup_root: PathBuf,
    /// Program and first arguments that run [`crate::supervisor::main`], e.g. `[/proc/self/exe, supervisor]`.
    pub supervisor_command: Vec<OsString>,
    /// At which hosts registries are reached, and how.
    pub registries: registries::Registries,
    pub pull_limits: PullLimits,
    /// OCI runtimes (the programs of runc and crun) by the names that RuntimeClasses have for them. Pods that
    /// name none, and those that name `trireme`, run in the embedded one.
    pub handlers: BTreeMap<String, PathBuf>,
    /// Bytes at which the supervisor rotates a log itself, because nobody reopened it in time: a
    /// backstop above the kubelet's own limit (10 MiB), for the time that the kubelet is away.
    pub log_max_bytes: u64,
    /// Rotated files the backstop keeps beside the current one.
    pub log_max_files: u32,
    /// Where `Localhost` seccomp profiles with relative names lie.
    pub seccomp_dir: PathBuf,
    /// Folders of CDI files; those of a later one win.
    pub cdi_dirs: Vec<PathBuf>,
    /// Apply the default seccomp profile when a container's asks for none.
    pub seccomp_default: bool,
}

impl Config {
    /// The usual layout below `/var/lib/<name>` and `/run/<name>`.
    pub fn new(root: impl Into<PathBuf>, state_dir: impl Into<PathBuf>) -> Self {
        Config {
            root: root.into(),
            state_dir: state_dir.into(),
            node_netns: None,
            cgroup_parent: "/trireme".to_owned(),
            cgroup_root: PathBuf::from("/sys/fs/cgroup"),
            supervisor_command: vec!["/proc/self/exe".into(), "supervisor".into()],
            registries: registries::Registries::default(),
            pull_limits: PullLimits::default(),
            handlers: BTreeMap::new(),
            log_max_bytes: 50 << 20,
            log_max_files: 4,
            seccomp_dir: PathBuf::from("/var/lib/kubelet/seccomp"),
            cdi_dirs: crate::cdi::FOLDERS.map(PathBuf::from).into(),
            seccomp_default: false,
        }
    }
}
