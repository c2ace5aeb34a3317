//! The space that a tree takes, measured without following links or crossing mounts.

use std::collections::{HashSet, VecDeque};
use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Stat, statat};

use super::{DIRECTORY, Dir, INSIDE, each, is_directory, resolve};

/// Bytes of the unit that `st_blocks` counts in.
const BLOCK: u64 = 512;
/// Directories held open one below the other; deeper ones are visited later, from the top.
const DEPTH_MAX: usize = 32;
/// Steps of one measurement, some seconds: a tree that takes more is not worked on for ever.
const STEPS_MAX: u64 = 10_000_000;
/// Files with several names that are remembered, so that each counts once.
const LINKED_MAX: usize = 100_000;

/// What a tree takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

impl Usage {
    pub(crate) fn plus(self, other: Usage) -> Usage {
        Usage {
            bytes: self.bytes.saturating_add(other.bytes),
            inodes: self.inodes.saturating_add(other.inodes),
        }
    }
}

#[derive(Default)]
struct Walk {
    usage: Usage,
    steps: u64,
    linked: HashSet<(u64, u64)>,
    later: VecDeque<PathBuf>,
}

impl Dir {
    /// The space that everything below the directory takes. Fails when that cannot be told in
    /// bounded time.
    pub(crate) fn usage(&self) -> io::Result<Usage> {
        let mut walk = Walk { later: VecDeque::from([PathBuf::new()]), ..Walk::default() };
        while let Some(path) = walk.later.pop_front() {
            walk.steps += path.components().count() as u64;
            // What was moved away since counts where it is now, if it still is inside.
            if let Ok(dir) = self.open(&path) {
                walk.directory(dir.as_fd(), &path, 0)?;
            }
        }
        Ok(walk.usage)
    }
}

impl Walk {
    fn directory(&mut self, dir: BorrowedFd<'_>, path: &Path, depth: usize) -> io::Result<()> {
        each(dir, |name| self.entry(dir, name, path, depth))
    }

    fn entry(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        path: &Path,
        depth: usize,
    ) -> io::Result<()> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(io::Error::other("too many files to be measured"));
        }
        let Ok(stat) = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(()) };
        self.count(&stat);
        if !is_directory(&stat) {
            return Ok(());
        }
        let below = path.join(OsStr::from_bytes(name.to_bytes()));
        if depth == DEPTH_MAX {
            self.later.push_back(below);
            return Ok(());
        }
        match resolve(dir, name, DIRECTORY, INSIDE) {
            Ok(fd) => self.directory(fd.as_fd(), &below, depth + 1),
            // Gone, swapped for something else, or a mount: not the volume's.
            Err(_) => Ok(()),
        }
    }

    fn count(&mut self, stat: &Stat) {
        if stat.st_nlink > 1 && !is_directory(stat) {
            let known = self.linked.contains(&(stat.st_dev, stat.st_ino));
            if known {
                return;
            }
            if self.linked.len() < LINKED_MAX {
                self.linked.insert((stat.st_dev, stat.st_ino));
            }
        }
        self.usage.inodes += 1;
        self.usage.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK;
    }
}
