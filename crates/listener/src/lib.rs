//! Limits of every listening socket: how many connections it holds, from one source and in all, and
//! how long one may stay silent.
//!
//! A connection is idle while it serves no request. At a limit the idlest one is closed to make room,
//! so that whoever opens connections and says nothing never shuts others out; a new connection is
//! refused only when all others are at work. Descriptors are shared by the whole process: the limits
//! of all its listeners together stay below what the process may open.

mod accept;
mod bind;
mod connection;
mod gate;
mod watched;

pub use accept::accept;
pub use bind::bind;
pub use connection::{Progress, Request};
pub use gate::{Gate, Limits, Slot};
pub use watched::Watched;

/// Raises the process's limit of open files to the most it may have, and returns it. Containers get
/// limits of their own.
pub fn raise_open_files() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(error) => {
            tracing::warn!(%error, "the limit of open files stays as it is");
            limit.current.unwrap_or(u64::MAX)
        }
    }
}
