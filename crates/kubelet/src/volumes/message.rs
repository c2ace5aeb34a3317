//! Files for containers' last words.
//!
//! Each run of a container has its own file, which is mounted into it; the directory around it is the
//! kubelet's, so the container can fill the file and nothing else. It is read by descriptor, from its
//! end, as far as a termination message goes: whatever else the container mounts at that path, and
//! however long it made the file.

use std::io;
use std::path::{Path, PathBuf};

use crate::beneath::{self, Access, Dir};

/// Longest termination message, as upstream's.
const MESSAGE_MAX: u64 = 4096;
/// Whatever user the container runs as must be able to write it.
const MODE: u32 = 0o666;
/// Earlier runs whose messages may still be asked for.
const KEPT: u32 = 2;

fn name(attempt: u32) -> String {
    format!("{attempt:08x}")
}

fn place(container: &str) -> PathBuf {
    Path::new("containers").join(container)
}

/// Makes the file of one run, empty; the runtime is given its path.
pub(crate) fn make(root: &Path, uid: &str, container: &str, attempt: u32) -> io::Result<PathBuf> {
    let dir = super::make_pod_dir(root, uid)?.make(place(container), beneath::PRIVATE)?;
    prune(&dir, attempt)?;
    dir.replace(name(attempt), b"", Access::mode(MODE))?;
    Ok(super::pod_dir(root, uid).join(place(container)).join(name(attempt)))
}

fn prune(dir: &Dir, attempt: u32) -> io::Result<()> {
    let oldest = name(attempt.saturating_sub(KEPT));
    let names = dir.names()?;
    names.iter().filter(|n| *n.to_string_lossy() < *oldest).try_for_each(|n| dir.remove(n))
}

/// The end of what one run has written; `None` when it has no file.
pub(crate) fn read(
    root: &Path,
    uid: &str,
    container: &str,
    attempt: u32,
) -> io::Result<Option<Vec<u8>>> {
    let dir = super::open_pod_dir(root, uid);
    match dir.and_then(|d| d.read_end(place(container).join(name(attempt)), MESSAGE_MAX)) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
