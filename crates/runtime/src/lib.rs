//! The embedded container runtime and image store behind the CRI's own types.
//!
//! # How it is built
//!
//! * [`service`]: the two traits the kubelet is written against, with the messages of [`cri`]; and the hook
//!   by which a pod network is plugged in. [`Embedded`] is the implementation here.
//! * `plan`: pure. From what the CRI asks and what the image says to a `wire::Plan` in which nothing
//!   is left to decide: steps of the file system, environment, user, capabilities, filters.
//! * `core`: the agent's side. Keeps records of sandboxes and containers (one file each below
//!   `root`), makes sandboxes (namespaces pinned by bind mounts; no pause process unless pods share their
//!   pid namespace), talks to the supervisor, and gives streams to the caller.
//! * [`supervisor`]: a small single-threaded process, the same binary, that outlives the agent. It clones
//!   containers, is their parent, owns terminals, pipes and log files, and writes down what runs and
//!   how it ended. Another supervisor can adopt all of it.
//! * [`cgroup`]: v1, v2 and hybrid, one writer. On v2 processes are born in their group; on v1 they
//!   join it themselves, as late as possible, while a ticker keeps the kernel's attach lock warm.
//! * [`image`]: layers as directories, imported from archives, made of one static binary, or fetched
//!   by `pull`: hashed, decompressed and unpacked while they come in.
//!
//! A start is: plan (agent) -> memory file -> supervisor: C strings and descriptors made ready -> `clone3` ->
//! child: raw system calls only (namespaces, mounts with the new API below an `openat2` root, pivot,
//! cgroups, credentials, filter, `execve`). The child tells of a failed step on a socket that closes by
//! itself when the program runs, so that the supervisor never waits.
//!
//! # What it does not do
//!
//! AppArmor and SELinux labels, checkpointing, hooks of CDI devices, user notification filters. Asking for one of
//! them is refused; SELinux labels are ignored where the kernel has no SELinux.

pub mod cdi;
pub mod cgroup;
pub mod config;
mod core;
pub mod cri;
mod error;
mod figures;
pub mod image;
mod packet;
mod plan;
mod pull;
pub mod service;
pub mod supervisor;
mod tree;
mod wire;

pub use self::core::Embedded;
pub use config::{Config, PullLimits};
pub use error::{Code, Error, Result};
pub use figures::{ContainerFigures, Figures, Interface, PodFigures};
pub use pull::fetch_file;
pub use service::{
    Duplex, ExecSession, ImageService, LoopbackOnly, NetworkError, RuntimeService, SandboxNet,
    SandboxNetwork, StreamOptions, TerminalSize,
};
