//! What the agent and the supervisor say to each other: one packet a message on a `SOCK_SEQPACKET`
//! unix socket, prost-encoded.
//!
//! Plans can be large (environment, filters), so they travel in a memory file passed as the packet's
//! first descriptor. Both ends are the same program, but not always the same version of it: fields
//! are only ever added.

/// One process to start: either a container's first one, or (when `exec_in` is set) another one in it.
/// Everything is decided; the supervisor only carries it out.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Plan {
    /// Unique among running things: the container's id, or a fresh one for an exec.
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    /// The container an exec joins; empty for a container.
    #[prost(string, tag = "2")]
    pub(crate) exec_in: String,
    #[prost(bool, tag = "3")]
    pub(crate) new_pid_ns: bool,
    /// A namespace to join instead: the init of this running thing.
    #[prost(string, tag = "4")]
    pub(crate) pid_ns_of: String,
    /// Pinned namespaces to join; empty: the supervisor's own.
    #[prost(string, tag = "5")]
    pub(crate) net_ns: String,
    #[prost(string, tag = "6")]
    pub(crate) ipc_ns: String,
    #[prost(string, tag = "7")]
    pub(crate) uts_ns: String,
    #[prost(bool, tag = "8")]
    pub(crate) new_cgroup_ns: bool,
    /// The v2 directory to be born in; empty when there is none.
    #[prost(string, tag = "9")]
    pub(crate) cgroup_dir: String,
    /// The v1 directories to join.
    #[prost(string, repeated, tag = "10")]
    pub(crate) cgroup_v1_dirs: Vec<String>,
    /// The step list that builds the file system; empty for an exec.
    #[prost(message, repeated, tag = "11")]
    pub(crate) steps: Vec<Step>,
    /// Where the root is mounted before the pivot: any empty directory.
    #[prost(string, tag = "12")]
    pub(crate) mount_point: String,
    #[prost(bool, tag = "13")]
    pub(crate) tty: bool,
    #[prost(bool, tag = "14")]
    pub(crate) stdin: bool,
    #[prost(bool, tag = "15")]
    pub(crate) stdin_once: bool,
    #[prost(string, repeated, tag = "16")]
    pub(crate) args: Vec<String>,
    #[prost(bytes = "vec", repeated, tag = "17")]
    pub(crate) env: Vec<Vec<u8>>,
    #[prost(string, tag = "18")]
    pub(crate) cwd: String,
    #[prost(uint32, tag = "19")]
    pub(crate) uid: u32,
    #[prost(uint32, tag = "20")]
    pub(crate) gid: u32,
    #[prost(uint32, repeated, tag = "21")]
    pub(crate) groups: Vec<u32>,
    #[prost(message, required, tag = "22")]
    pub(crate) caps: Capabilities,
    #[prost(bool, tag = "23")]
    pub(crate) no_new_privs: bool,
    /// Filters (`struct sock_filter` arrays), loaded in this order.
    #[prost(bytes = "vec", repeated, tag = "24")]
    pub(crate) seccomp: Vec<Vec<u8>>,
    #[prost(sint32, optional, tag = "25")]
    pub(crate) oom_score_adj: Option<i32>,
    /// Empty: output is read but not kept.
    #[prost(string, tag = "26")]
    pub(crate) log_path: String,
    #[prost(uint64, tag = "27")]
    pub(crate) log_max_bytes: u64,
    #[prost(uint32, tag = "28")]
    pub(crate) log_max_files: u32,
    /// No program: an init that only reaps, for a shared pid namespace.
    #[prost(bool, tag = "29")]
    pub(crate) pause: bool,
    /// The pinned user namespace to join; empty: the host's.
    #[prost(string, tag = "30")]
    pub(crate) user_ns: String,
    /// The filters refuse calls that are made after them otherwise: they are loaded at the very end.
    #[prost(bool, tag = "31")]
    pub(crate) filters_last: bool,
    /// The host's number for the user, where a user namespace maps it: the streams become its own.
    #[prost(uint32, optional, tag = "32")]
    pub(crate) host_uid: Option<u32>,
    /// The program is an OCI runtime's, in the supervisor's own namespaces; its cgroups are the container's.
    #[prost(message, optional, tag = "33")]
    pub(crate) foreign: Option<Foreign>,
}

/// An OCI runtime's `create`, or its `exec` that does not wait: the process that it leaves is the plan's.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Foreign {
    /// Where it writes that process's number.
    #[prost(string, tag = "1")]
    pub(crate) pid_file: String,
    /// Whether it sends a terminal to the socket [`CONSOLE`] in its working directory.
    #[prost(bool, tag = "2")]
    pub(crate) terminal: bool,
}

/// The name of the socket that an OCI runtime sends a terminal to.
pub(crate) const CONSOLE: &str = "console";

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Capabilities {
    #[prost(uint64, tag = "1")]
    pub(crate) bounding: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) effective: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) permitted: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) inheritable: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) ambient: u64,
}

/// One step of building the container's file system. Targets are absolute paths inside it and are
/// resolved inside it, whatever symbolic links the image has.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Step {
    #[prost(oneof = "StepKind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10")]
    pub(crate) kind: Option<StepKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum StepKind {
    /// The root: an overlay, upper layer last in `lowers`' order of search.
    #[prost(message, tag = "1")]
    Root(Overlay),
    /// An empty read-only root.
    #[prost(bool, tag = "2")]
    EmptyRoot(bool),
    #[prost(message, tag = "3")]
    Mount(MountFs),
    #[prost(message, tag = "4")]
    Bind(Bind),
    #[prost(message, tag = "5")]
    Node(Node),
    #[prost(message, tag = "6")]
    Symlink(Symlink),
    /// Hides a file or a directory, if it is there.
    #[prost(string, tag = "7")]
    Mask(String),
    /// Makes a path read-only, if it is there.
    #[prost(string, tag = "8")]
    ReadOnly(String),
    /// Makes a directory, with its parents.
    #[prost(string, tag = "9")]
    Directory(String),
    /// Last of all: no more writing to the root itself.
    #[prost(bool, tag = "10")]
    ReadOnlyRoot(bool),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Overlay {
    /// Topmost first.
    #[prost(string, repeated, tag = "1")]
    pub(crate) lowers: Vec<String>,
    /// Empty together with `work`: nothing can be written.
    #[prost(string, tag = "2")]
    pub(crate) upper: String,
    #[prost(string, tag = "3")]
    pub(crate) work: String,
    /// Where it goes; empty: it is the root.
    #[prost(string, tag = "4")]
    pub(crate) target: String,
    /// Owners are seen through the plan's user namespace.
    #[prost(bool, tag = "5")]
    pub(crate) mapped: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MountFs {
    #[prost(string, tag = "1")]
    pub(crate) fs_type: String,
    #[prost(string, tag = "2")]
    pub(crate) target: String,
    /// `MOUNT_ATTR_*`.
    #[prost(uint64, tag = "3")]
    pub(crate) attributes: u64,
    /// `key=value`, or `key` alone for a flag.
    #[prost(string, repeated, tag = "4")]
    pub(crate) options: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Bind {
    #[prost(string, tag = "1")]
    pub(crate) source: String,
    #[prost(string, tag = "2")]
    pub(crate) target: String,
    #[prost(bool, tag = "3")]
    pub(crate) read_only: bool,
    /// Read-only for the mounts below it too.
    #[prost(bool, tag = "4")]
    pub(crate) recursive_read_only: bool,
    /// `MS_PRIVATE`, `MS_SLAVE` or `MS_SHARED`.
    #[prost(uint64, tag = "5")]
    pub(crate) propagation: u64,
    /// A directory inside `source`, resolved inside it.
    #[prost(string, tag = "6")]
    pub(crate) sub_path: String,
    /// Owners are seen through the plan's user namespace.
    #[prost(bool, tag = "7")]
    pub(crate) mapped: bool,
    /// `MOUNT_ATTR_*` beside `read_only`.
    #[prost(uint64, tag = "8")]
    pub(crate) attributes: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Node {
    #[prost(string, tag = "1")]
    pub(crate) path: String,
    /// With the type bits.
    #[prost(uint32, tag = "2")]
    pub(crate) mode: u32,
    #[prost(uint64, tag = "3")]
    pub(crate) device: u64,
    #[prost(uint32, tag = "4")]
    pub(crate) uid: u32,
    #[prost(uint32, tag = "5")]
    pub(crate) gid: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Symlink {
    #[prost(string, tag = "1")]
    pub(crate) path: String,
    #[prost(string, tag = "2")]
    pub(crate) to: String,
}

/// Agent to supervisor.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Request {
    /// Echoed in the reply.
    #[prost(uint64, tag = "1")]
    pub(crate) serial: u64,
    #[prost(oneof = "Ask", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10")]
    pub(crate) ask: Option<Ask>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Ask {
    /// Descriptors: the plan; for an exec without terminal also its stdin, stdout, stderr.
    #[prost(bool, tag = "2")]
    Start(bool),
    #[prost(message, tag = "3")]
    Signal(Signal),
    /// Descriptors: as `Attach` says, in the order stdin, stdout, stderr.
    #[prost(message, tag = "4")]
    Attach(Attach),
    #[prost(message, tag = "5")]
    Resize(Resize),
    #[prost(string, tag = "6")]
    ReopenLog(String),
    #[prost(bool, tag = "7")]
    List(bool),
    /// Drops what is remembered of an ended thing.
    #[prost(string, tag = "8")]
    Forget(String),
    /// Starts are about to come: keep the v1 attach lock warm.
    #[prost(bool, tag = "9")]
    Warm(bool),
    /// A user namespace, and others that it owns.
    #[prost(message, tag = "10")]
    UserNamespace(UserNamespaceAsk),
}

/// Mappings in the form of `/proc/PID/uid_map`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct UserNamespaceAsk {
    #[prost(string, tag = "1")]
    pub(crate) uid_map: String,
    #[prost(string, tag = "2")]
    pub(crate) gid_map: String,
    #[prost(bool, tag = "3")]
    pub(crate) net: bool,
    #[prost(bool, tag = "4")]
    pub(crate) ipc: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Signal {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(int32, tag = "2")]
    pub(crate) number: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Attach {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(bool, tag = "2")]
    pub(crate) stdin: bool,
    #[prost(bool, tag = "3")]
    pub(crate) stdout: bool,
    #[prost(bool, tag = "4")]
    pub(crate) stderr: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Resize {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(uint32, tag = "2")]
    pub(crate) width: u32,
    #[prost(uint32, tag = "3")]
    pub(crate) height: u32,
}

/// Supervisor to agent: the answer to a request, or (serial 0) an event.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Reply {
    #[prost(uint64, tag = "1")]
    pub(crate) serial: u64,
    #[prost(oneof = "Tell", tags = "2, 3, 4, 5, 6, 7")]
    pub(crate) tell: Option<Tell>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Tell {
    #[prost(bool, tag = "2")]
    Done(bool),
    #[prost(message, tag = "3")]
    Failed(Failure),
    /// Descriptor, for an exec with a terminal: the master.
    #[prost(message, tag = "4")]
    Started(Run),
    #[prost(message, tag = "5")]
    Listed(RunList),
    /// Event: a container or an exec has ended.
    #[prost(message, tag = "6")]
    Exited(Run),
    /// Descriptors: the user namespace, then uts, and net and ipc as asked.
    #[prost(bool, tag = "7")]
    Namespaces(bool),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Failure {
    #[prost(string, tag = "1")]
    pub(crate) step: String,
    #[prost(int32, tag = "2")]
    pub(crate) errno: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RunList {
    #[prost(message, repeated, tag = "1")]
    pub(crate) runs: Vec<Run>,
    /// The sender's [`LEVEL`]; absent (0) before there were levels.
    #[prost(uint32, tag = "2")]
    pub(crate) level: u32,
}

/// Counts changes that a running supervisor must not miss: 1, starting processes are closed to their
/// containers; 2, OCI runtimes start processes.
pub(crate) const LEVEL: u32 = 2;

impl RunList {
    /// Whether the supervisor is of an earlier level and can be replaced: all that it runs is adopted
    /// by the next one but terminals, which would hang up.
    pub(crate) fn replaceable(&self) -> bool {
        self.level < LEVEL && !self.runs.iter().any(|run| run.tty && !run.ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_supervisors_are_replaced_unless_terminals_hang_on_them() {
        let list =
            |level, tty, ended| RunList { runs: vec![Run { tty, ended, ..Run::default() }], level };
        assert!(list(0, false, false).replaceable() && list(0, true, true).replaceable());
        assert!(!list(0, true, false).replaceable() && !list(LEVEL, false, false).replaceable());
    }
}

/// A running or ended process: also the form it is kept in on disk.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Run {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(int32, tag = "2")]
    pub(crate) pid: i32,
    /// The kernel's start time of `pid` (clock ticks since boot): tells it from a later process.
    #[prost(uint64, tag = "3")]
    pub(crate) start_ticks: u64,
    /// Nanoseconds since 1970.
    #[prost(int64, tag = "4")]
    pub(crate) started_at: i64,
    #[prost(bool, tag = "5")]
    pub(crate) ended: bool,
    #[prost(int64, tag = "6")]
    pub(crate) finished_at: i64,
    /// The exit code, or 128 + signal.
    #[prost(int32, tag = "7")]
    pub(crate) exit_code: i32,
    #[prost(bool, tag = "8")]
    pub(crate) oom_killed: bool,
    #[prost(bool, tag = "9")]
    pub(crate) exec: bool,
    /// What the supervisor needs to adopt it after its own restart.
    #[prost(string, tag = "10")]
    pub(crate) log_path: String,
    #[prost(uint64, tag = "11")]
    pub(crate) log_max_bytes: u64,
    #[prost(uint32, tag = "12")]
    pub(crate) log_max_files: u32,
    #[prost(bool, tag = "13")]
    pub(crate) tty: bool,
    #[prost(string, tag = "14")]
    pub(crate) cgroup_dir: String,
    #[prost(string, repeated, tag = "15")]
    pub(crate) cgroup_v1_dirs: Vec<String>,
    #[prost(bool, tag = "16")]
    pub(crate) stdin_once: bool,
    /// Nobody saw its end: an exec may still run.
    #[prost(bool, tag = "17")]
    pub(crate) unseen: bool,
}
