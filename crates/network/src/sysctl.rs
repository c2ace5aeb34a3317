//! Kernel switches of one network namespace.
//!
//! `/proc/sys/net` shows the namespace of the thread that opens the file, so each write happens on
//! a thread inside the node's namespace and never touches another one's switches.

use std::io;
use std::path::PathBuf;

use crate::netns::{NetNs, NetNsError, run_in};

#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    #[error(transparent)]
    Enter(#[from] NetNsError),
    #[error("write {value} to {path}: {source}")]
    Write { path: PathBuf, value: String, source: io::Error },
    #[error("read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
}

/// Sets `switches`, given as (path below `/proc/sys/net`, value), all from one thread. A switch that
/// already has its value is not written: some kernels flush caches on every write.
pub fn set(ns: Option<&NetNs>, switches: &[(String, &str)]) -> Result<(), SysctlError> {
    run_in(ns, || switches.iter().try_for_each(|(name, value)| set_one(name, value)))?
}

/// The trimmed value of the switch `name`.
pub fn get(ns: Option<&NetNs>, name: &str) -> Result<String, SysctlError> {
    let path = path_of(name);
    let text = run_in(ns, || std::fs::read_to_string(&path))?;
    match text {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(source) => Err(SysctlError::Read { path, source }),
    }
}

fn set_one(name: &str, value: &str) -> Result<(), SysctlError> {
    let path = path_of(name);
    if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(|source| SysctlError::Write {
        path,
        value: value.to_owned(),
        source,
    })
}

fn path_of(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys/net").join(name)
}
