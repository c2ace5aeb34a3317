//! Parts of volumes whose content is their containers': found once, and held by descriptor.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, open};

use super::{Dir, is_directory, parts, read_within, reopen_file, resolve};

/// A file or directory in a volume, held by its descriptor; see [`Volume`].
#[derive(Debug)]
pub(crate) struct Held {
    pub(super) fd: OwnedFd,
}

impl Held {
    pub(crate) fn is_directory(&self) -> io::Result<bool> {
        Ok(is_directory(&fstat(&self.fd)?))
    }

    /// The content of a regular file that is not longer than `limit`.
    pub(crate) fn read(&self, limit: usize) -> io::Result<Vec<u8>> {
        read_within(reopen_file(&self.fd)?, limit)
    }
}

/// A volume whose content is its container's: links inside are followed as long as they stay inside,
/// which the kernel watches while it walks.
#[derive(Debug)]
pub(crate) struct Volume {
    fd: OwnedFd,
}

/// Links may be followed, but not out of the volume. Mounts inside a hostPath volume belong to it.
const WITHIN: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

impl Volume {
    pub(crate) fn of(dir: Dir) -> Volume {
        Volume { fd: dir.fd }
    }

    /// A hostPath volume: whoever may use one names a path of the host.
    pub(crate) fn host(path: &Path) -> io::Result<Volume> {
        Ok(Volume { fd: open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())? })
    }

    /// The part `sub` of the volume; `None` when it is missing.
    pub(crate) fn find(&self, sub: &Path) -> io::Result<Option<Held>> {
        let sub = if sub.as_os_str().is_empty() { Path::new(".") } else { sub };
        match resolve(self.fd.as_fd(), sub, OFlags::PATH, WITHIN) {
            Ok(fd) => Ok(Some(Held { fd })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the directories of `sub` that are missing, with the mode of the volume's root.
    pub(crate) fn make(&self, sub: &Path) -> io::Result<Held> {
        let mode = fstat(&self.fd)?.st_mode & 0o7777;
        let directory = OFlags::PATH | OFlags::DIRECTORY;
        let mut at = resolve(self.fd.as_fd(), ".", directory, WITHIN)?;
        let parts = parts(sub)?;
        let mut existing = PathBuf::new();
        let mut missing = parts.as_slice();
        while let Some((first, rest)) = missing.split_first() {
            // From the volume's root each time: a link's way is judged against the whole volume.
            match resolve(self.fd.as_fd(), &existing.join(first), directory, WITHIN) {
                Ok(fd) => at = fd,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            }
            existing.push(first);
            missing = rest;
        }
        for name in missing {
            let parent = Dir { fd: at };
            at = parent.make_one(name, mode)?.fd;
        }
        Ok(Held { fd: at })
    }
}
