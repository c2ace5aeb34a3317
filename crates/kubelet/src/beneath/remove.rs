//! Recursive removal that follows no link and crosses no mount, in bounded memory and with few
//! descriptors, whatever the tree's shape, and while somebody else works on it.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, RenameFlags, renameat_with, unlinkat};
use rustix::io::Errno;

use super::{DIRECTORY, Dir, INSIDE, each, resolve};

/// Directories held open one below the other. What lies deeper is first moved to the top.
const DEPTH_MAX: usize = 32;
/// Passes over a directory that somebody fills while it is emptied.
const PASSES: usize = 8;
/// Name of a subtree that was moved to the top; a crash leaves it there for the next removal.
const MOVED: &str = "..removed";

struct Removal<'a> {
    top: BorrowedFd<'a>,
    moved: VecDeque<CString>,
    count: u64,
}

impl Dir {
    /// Removes an entry with all that is below it; a missing one is no error. A mount point below
    /// is an error.
    pub(crate) fn remove(&self, name: impl AsRef<Path>) -> io::Result<()> {
        use std::os::unix::ffi::OsStrExt;
        let name = name.as_ref().as_os_str().as_bytes();
        if name.contains(&b'/') || matches!(name, b"" | b"." | b"..") {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut removal =
            Removal { top: self.as_fd(), moved: VecDeque::from([CString::new(name)?]), count: 0 };
        while let Some(name) = removal.moved.pop_front() {
            removal.entry(removal.top, &name, 0)?;
        }
        Ok(())
    }
}

impl Removal<'_> {
    fn entry(&mut self, parent: BorrowedFd<'_>, name: &CStr, depth: usize) -> io::Result<()> {
        for _ in 0..PASSES {
            match unlinkat(parent, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(Errno::ISDIR) => {}
                Err(error) => return Err(error.into()),
            }
            match unlinkat(parent, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                // Not a directory any more.
                Err(Errno::NOTDIR) => continue,
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            if depth == DEPTH_MAX {
                return self.move_up(parent, name);
            }
            self.empty(parent, name, depth)?;
        }
        match unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn empty(&mut self, parent: BorrowedFd<'_>, name: &CStr, depth: usize) -> io::Result<()> {
        let dir = match resolve(parent, name, DIRECTORY, INSIDE) {
            Ok(dir) => dir,
            // Replaced meanwhile: the caller looks again.
            Err(e) if matches!(raw(&e), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        each(dir.as_fd(), |name| self.entry(dir.as_fd(), name, depth + 1))
    }

    fn move_up(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        loop {
            let own = CString::new(format!("{MOVED}{}", self.count))?;
            self.count += 1;
            match renameat_with(parent, name, self.top, &own, RenameFlags::NOREPLACE) {
                Ok(()) => {
                    self.moved.push_back(own);
                    return Ok(());
                }
                Err(Errno::EXIST) => {}
                Err(Errno::NOENT) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn raw(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw_os_error)
}
