//! What the agent and the supervisor say to each other: one packet a message on a `SOCK_SEQPACKET`
//! unix socket, prost-encoded.
//!
//! Plans can be large (environment, filters), so they travel in a memory file passed as the packet's
//! first descriptor. Both ends are the same program, but not always the same version of it: fields
//! are only ever added.

/// One process to start: either a container's first one, or (when `exec_in` is set) another one in it.
/// Everything is decided; the supervisor only carries it out.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Plan {
    /// Unique among running things: the container's id, or a fresh one for an exec.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The container an exec joins; empty for a container.
    #[prost(string, tag = "2")]
    pub exec_in: String,
    #[prost(bool, tag = "3")]
    pub new_pid_ns: bool,
    /// A namespace to join instead: the init of this running thing.
    #[prost(string, tag = "4")]
    pub pid_ns_of: String,
    /// Pinned namespaces to join; empty: the supervisor's own.
    #[prost(string, tag = "5")]
    pub net_ns: String,
    #[prost(string, tag = "6")]
    pub ipc_ns: String,
    #[prost(string, tag = "7")]
    pub uts_ns: String,
    #[prost(bool, tag = "8")]
    pub new_cgroup_ns: bool,
    /// The v2 directory to be born in; empty when there is none.
    #[prost(string, tag = "9")]
    pub cgroup_dir: String,
    /// The v1 directories to join.
    #[prost(string, repeated, tag = "10")]
    pub cgroup_v1_dirs: Vec<String>,
    /// The step list that builds the file system; empty for an exec.
    #[prost(message, repeated, tag = "11")]
    pub steps: Vec<Step>,
    /// Where the root is mounted before the pivot: any empty directory.
    #[prost(string, tag = "12")]
    pub mount_point: String,
    #[prost(bool, tag = "13")]
    pub tty: bool,
    #[prost(bool, tag = "14")]
    pub stdin: bool,
    #[prost(bool, tag = "15")]
    pub stdin_once: bool,
    #[prost(string, repeated, tag = "16")]
    pub args: Vec<String>,
    #[prost(bytes = "vec", repeated, tag = "17")]
    pub env: Vec<Vec<u8>>,
    #[prost(string, tag = "18")]
    pub cwd: String,
    #[prost(uint32, tag = "19")]
    pub uid: u32,
    #[prost(uint32, tag = "20")]
    pub gid: u32,
    #[prost(uint32, repeated, tag = "21")]
    pub groups: Vec<u32>,
    #[prost(message, required, tag = "22")]
    pub caps: Capabilities,
    #[prost(bool, tag = "23")]
    pub no_new_privs: bool,
    /// Filters (`struct sock_filter` arrays), loaded in this order.
    #[prost(bytes = "vec", repeated, tag = "24")]
    pub seccomp: Vec<Vec<u8>>,
    #[prost(sint32, optional, tag = "25")]
    pub oom_score_adj: Option<i32>,
    /// Empty: output is read but not kept.
    #[prost(string, tag = "26")]
    pub log_path: String,
    #[prost(uint64, tag = "27")]
    pub log_max_bytes: u64,
    #[prost(uint32, tag = "28")]
    pub log_max_files: u32,
    /// No program: an init that only reaps, for a shared pid namespace.
    #[prost(bool, tag = "29")]
    pub pause: bool,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Capabilities {
    #[prost(uint64, tag = "1")]
    pub bounding: u64,
    #[prost(uint64, tag = "2")]
    pub effective: u64,
    #[prost(uint64, tag = "3")]
    pub permitted: u64,
    #[prost(uint64, tag = "4")]
    pub inheritable: u64,
    #[prost(uint64, tag = "5")]
    pub ambient: u64,
}

/// One step of building the container's file system. Targets are absolute paths inside it and are
/// resolved inside it, whatever symbolic links the image has.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Step {
    #[prost(oneof = "StepKind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10")]
    pub kind: Option<StepKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum StepKind {
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
pub struct Overlay {
    /// Topmost first.
    #[prost(string, repeated, tag = "1")]
    pub lowers: Vec<String>,
    /// Empty together with `work`: nothing can be written.
    #[prost(string, tag = "2")]
    pub upper: String,
    #[prost(string, tag = "3")]
    pub work: String,
    /// Where it goes; empty: it is the root.
    #[prost(string, tag = "4")]
    pub target: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct MountFs {
    #[prost(string, tag = "1")]
    pub fs_type: String,
    #[prost(string, tag = "2")]
    pub target: String,
    /// `MOUNT_ATTR_*`.
    #[prost(uint64, tag = "3")]
    pub attributes: u64,
    /// `key=value`, or `key` alone for a flag.
    #[prost(string, repeated, tag = "4")]
    pub options: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Bind {
    #[prost(string, tag = "1")]
    pub source: String,
    #[prost(string, tag = "2")]
    pub target: String,
    #[prost(bool, tag = "3")]
    pub read_only: bool,
    /// Read-only for the mounts below it too.
    #[prost(bool, tag = "4")]
    pub recursive_read_only: bool,
    /// `MS_PRIVATE`, `MS_SLAVE` or `MS_SHARED`.
    #[prost(uint64, tag = "5")]
    pub propagation: u64,
    /// A directory inside `source`, resolved inside it.
    #[prost(string, tag = "6")]
    pub sub_path: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Node {
    #[prost(string, tag = "1")]
    pub path: String,
    /// With the type bits.
    #[prost(uint32, tag = "2")]
    pub mode: u32,
    #[prost(uint64, tag = "3")]
    pub device: u64,
    #[prost(uint32, tag = "4")]
    pub uid: u32,
    #[prost(uint32, tag = "5")]
    pub gid: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Symlink {
    #[prost(string, tag = "1")]
    pub path: String,
    #[prost(string, tag = "2")]
    pub to: String,
}

/// Agent to supervisor.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    /// Echoed in the reply.
    #[prost(uint64, tag = "1")]
    pub serial: u64,
    #[prost(oneof = "Ask", tags = "2, 3, 4, 5, 6, 7, 8, 9")]
    pub ask: Option<Ask>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Ask {
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
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Signal {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(int32, tag = "2")]
    pub number: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Attach {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(bool, tag = "2")]
    pub stdin: bool,
    #[prost(bool, tag = "3")]
    pub stdout: bool,
    #[prost(bool, tag = "4")]
    pub stderr: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Resize {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(uint32, tag = "2")]
    pub width: u32,
    #[prost(uint32, tag = "3")]
    pub height: u32,
}

/// Supervisor to agent: the answer to a request, or (serial 0) an event.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Reply {
    #[prost(uint64, tag = "1")]
    pub serial: u64,
    #[prost(oneof = "Tell", tags = "2, 3, 4, 5, 6")]
    pub tell: Option<Tell>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Tell {
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
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Failure {
    #[prost(string, tag = "1")]
    pub step: String,
    #[prost(int32, tag = "2")]
    pub errno: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct RunList {
    #[prost(message, repeated, tag = "1")]
    pub runs: Vec<Run>,
}

/// A running or ended process: also the form it is kept in on disk.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Run {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(int32, tag = "2")]
    pub pid: i32,
    /// The kernel's start time of `pid` (clock ticks since boot): tells it from a later process.
    #[prost(uint64, tag = "3")]
    pub start_ticks: u64,
    /// Nanoseconds since 1970.
    #[prost(int64, tag = "4")]
    pub started_at: i64,
    #[prost(bool, tag = "5")]
    pub ended: bool,
    #[prost(int64, tag = "6")]
    pub finished_at: i64,
    /// The exit code, or 128 + signal.
    #[prost(int32, tag = "7")]
    pub exit_code: i32,
    #[prost(bool, tag = "8")]
    pub oom_killed: bool,
    #[prost(bool, tag = "9")]
    pub exec: bool,
    /// What the supervisor needs to adopt it after its own restart.
    #[prost(string, tag = "10")]
    pub log_path: String,
    #[prost(uint64, tag = "11")]
    pub log_max_bytes: u64,
    #[prost(uint32, tag = "12")]
    pub log_max_files: u32,
    #[prost(bool, tag = "13")]
    pub tty: bool,
    #[prost(string, tag = "14")]
    pub cgroup_dir: String,
    #[prost(string, repeated, tag = "15")]
    pub cgroup_v1_dirs: Vec<String>,
    #[prost(bool, tag = "16")]
    pub stdin_once: bool,
}
