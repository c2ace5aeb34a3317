//! Files below a directory, by descriptor.
//!
//! Containers own the content of many directories below `pods/` and may swap any of it at any
//! moment, so no path there is ever walked by name: every step goes through `openat2`, which neither
//! follows a link, nor leaves the directory, nor crosses a mount. A file that was checked is used
//! through the descriptor that was checked.

mod mounts;
mod remove;
mod usage;
mod volume;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawDir, ResolveFlags, Stat, Uid, fchmod, fchown, fstat,
    mkdirat, open, openat, openat2, readlinkat, renameat, statat, symlinkat,
};
use rustix::io::Errno;

pub(crate) use mounts::{bind, tmpfs, unmount, unmount_and_remove};
pub(crate) use usage::Usage;
pub(crate) use volume::{Held, Volume};

/// No link, no way out, no other mount.
const INSIDE: ResolveFlags = BENEATH.union(ResolveFlags::NO_XDEV);
/// No link, no way out; mounts may be crossed.
const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// Directories that only the kubelet uses: upstream's mode.
pub(crate) const PRIVATE: u32 = 0o750;
/// The kernel asks for another try (`EAGAIN`) when a rename anywhere raced with a `..` in a link.
const TRIES: usize = 64;
/// Bytes of directory entries read at once.
const ENTRIES: usize = 8 << 10;

/// An open directory.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
}

/// Who owns a file, and who may use it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Access {
    pub(crate) mode: u32,
    pub(crate) user: Option<u32>,
    pub(crate) group: Option<u32>,
}

impl Access {
    pub(crate) fn mode(mode: u32) -> Access {
        Access { mode, ..Access::default() }
    }

    /// The owner first: a change of owner clears the set-id bits.
    fn set(self, fd: impl AsFd) -> io::Result<()> {
        if self.user.is_some() || self.group.is_some() {
            fchown(&fd, self.user.map(Uid::from_raw), self.group.map(Gid::from_raw))?;
        }
        Ok(fchmod(&fd, Mode::from_raw_mode(self.mode))?)
    }
}

fn resolve(
    dir: BorrowedFd<'_>,
    path: impl rustix::path::Arg + Copy,
    flags: OFlags,
    how: ResolveFlags,
) -> io::Result<OwnedFd> {
    for _ in 1..TRIES {
        match openat2(dir, path, flags | OFlags::CLOEXEC, Mode::empty(), how) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
    Ok(openat2(dir, path, flags | OFlags::CLOEXEC, Mode::empty(), how)?)
}

/// The components of a relative path without `..`.
fn parts(path: &Path) -> io::Result<Vec<&OsStr>> {
    let name = |part| match part {
        Component::Normal(name) => Some(name),
        _ => None,
    };
    let parts = path.components().filter(|c| *c != Component::CurDir);
    parts.map(name).collect::<Option<Vec<_>>>().ok_or_else(|| {
        let text = format!("{} is not a path below a directory", path.display());
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })
}

/// Reads a descriptor that was opened without access (`O_PATH`), if it is a regular file. Anything
/// else is never opened: that could block, or do something.
fn reopen_file(fd: &OwnedFd) -> io::Result<File> {
    if FileType::from_raw_mode(fstat(fd)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(open(descriptor_path(fd), flags, Mode::empty())?.into())
}

fn read_within(file: File, limit: usize) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut content)?;
    if content.len() > limit {
        let text = format!("longer than {limit} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(content)
}

/// The name under which this process sees an open descriptor.
fn descriptor_path(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

impl Dir {
    /// Opens a directory by its name. Only for directories on whose path nobody but the node's
    /// owner can write.
    pub(crate) fn root(path: &Path) -> io::Result<Dir> {
        Ok(Dir { fd: open(path, DIRECTORY, Mode::empty())? })
    }

    /// The same, made when it is missing.
    pub(crate) fn make_root(path: &Path) -> io::Result<Dir> {
        match Dir::root(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                use std::os::unix::fs::DirBuilderExt;
                std::fs::DirBuilder::new().recursive(true).mode(PRIVATE).create(path)?;
                Dir::root(path)
            }
            other => other,
        }
    }

    pub(crate) fn open(&self, path: impl AsRef<Path>) -> io::Result<Dir> {
        self.walk(path.as_ref(), DIRECTORY, INSIDE).map(|fd| Dir { fd })
    }

    /// The directory `name`, which may be a mount of the kubelet's own.
    pub(crate) fn open_mount(&self, name: impl AsRef<Path>) -> io::Result<Dir> {
        let name = name.as_ref();
        if parts(name)?.len() != 1 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        resolve(self.fd.as_fd(), name, DIRECTORY, BENEATH).map(|fd| Dir { fd })
    }

    /// Whether `name` is a mount point.
    pub(crate) fn is_mount(&self, name: impl AsRef<Path>) -> io::Result<bool> {
        match resolve(self.fd.as_fd(), name.as_ref(), OFlags::PATH, INSIDE) {
            Ok(_) => Ok(false),
            Err(error) if error.raw_os_error() == Some(Errno::XDEV.raw_os_error()) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Component by component, so that no length of a path is too long.
    fn walk(&self, path: &Path, flags: OFlags, how: ResolveFlags) -> io::Result<OwnedFd> {
        let parts = parts(path)?;
        let Some((last, before)) = parts.split_last() else {
            return resolve(self.fd.as_fd(), ".", flags, how);
        };
        let mut at: Option<OwnedFd> = None;
        for part in before {
            let from = at.as_ref().map_or(self.fd.as_fd(), |fd| fd.as_fd());
            at = Some(resolve(from, *part, OFlags::PATH | OFlags::DIRECTORY, how)?);
        }
        let from = at.as_ref().map_or(self.fd.as_fd(), |fd| fd.as_fd());
        resolve(from, *last, flags, how)
    }

    /// Opens directories one below the other; those that are missing are made with `mode`.
    pub(crate) fn make(&self, path: impl AsRef<Path>, mode: u32) -> io::Result<Dir> {
        let mut at = self.open("")?;
        for part in parts(path.as_ref())? {
            at = at.make_one(part, mode)?;
        }
        Ok(at)
    }

    fn make_one(&self, name: &OsStr, mode: u32) -> io::Result<Dir> {
        let made = match mkdirat(&self.fd, name, Mode::from_raw_mode(mode)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        let dir = self.open(name)?;
        if made {
            // The process's umask does not count.
            fchmod(&dir.fd, Mode::from_raw_mode(mode))?;
        }
        Ok(dir)
    }

    /// A regular file for reading; anything else of that name is an error and is not opened.
    pub(crate) fn file(&self, path: impl AsRef<Path>) -> io::Result<File> {
        reopen_file(&self.walk(path.as_ref(), OFlags::PATH | OFlags::NOFOLLOW, INSIDE)?)
    }

    /// A file's content, if it is not longer than `limit`.
    pub(crate) fn read(&self, path: impl AsRef<Path>, limit: usize) -> io::Result<Vec<u8>> {
        read_within(self.file(path)?, limit)
    }

    /// The last bytes of a file.
    pub(crate) fn read_end(&self, path: impl AsRef<Path>, limit: u64) -> io::Result<Vec<u8>> {
        let mut file = self.file(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
        let mut content = Vec::new();
        file.take(limit).read_to_end(&mut content)?;
        Ok(content)
    }

    /// Makes a file that must not exist.
    pub(crate) fn create(
        &self,
        name: impl AsRef<Path>,
        content: &[u8],
        access: Access,
    ) -> io::Result<()> {
        let mut file = self.create_empty(name)?;
        file.write_all(content)?;
        access.set(&file)
    }

    /// Makes a file that must not exist, for writing; nobody else may read it yet.
    pub(crate) fn create_empty(&self, name: impl AsRef<Path>) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let fd = openat(&self.fd, name.as_ref(), flags | OFlags::CLOEXEC, Mode::RUSR)?;
        Ok(File::from(fd))
    }

    /// Puts a new file in the place of whatever has that name.
    pub(crate) fn replace(
        &self,
        name: impl AsRef<Path>,
        content: &[u8],
        access: Access,
    ) -> io::Result<()> {
        let mut next = std::ffi::OsString::from(".");
        next.push(name.as_ref());
        next.push(".new");
        self.remove(&next)?;
        self.create(&next, content, access)?;
        if self.stat(&name)?.is_some_and(|s| is_directory(&s)) {
            self.remove(&name)?;
        }
        self.rename(&next, name)
    }

    /// Makes a file and its name last through a loss of power.
    pub(crate) fn sync(&self, name: impl AsRef<Path>) -> io::Result<()> {
        self.file(name)?.sync_all()?;
        Ok(rustix::fs::fsync(&self.fd)?)
    }

    pub(crate) fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        Ok(renameat(&self.fd, from.as_ref(), &self.fd, to.as_ref())?)
    }

    pub(crate) fn symlink(
        &self,
        target: impl AsRef<Path>,
        name: impl AsRef<Path>,
    ) -> io::Result<()> {
        Ok(symlinkat(target.as_ref(), &self.fd, name.as_ref())?)
    }

    /// Where a link points to; `None` when the name is missing or no link.
    pub(crate) fn read_link(&self, name: impl AsRef<Path>) -> io::Result<Option<PathBuf>> {
        use std::os::unix::ffi::OsStringExt;
        match readlinkat(&self.fd, name.as_ref(), Vec::new()) {
            Ok(target) => Ok(Some(std::ffi::OsString::from_vec(target.into_bytes()).into())),
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What is said of the entry itself; `None` when it is missing.
    pub(crate) fn stat(&self, name: impl AsRef<Path>) -> io::Result<Option<Stat>> {
        match statat(&self.fd, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn set_access(&self, access: Access) -> io::Result<()> {
        access.set(&self.fd)
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// All names, in no order. Only for directories that containers do not write to.
    pub(crate) fn names(&self) -> io::Result<Vec<std::ffi::OsString>> {
        use std::os::unix::ffi::OsStrExt;
        let mut names = Vec::new();
        each(self.fd.as_fd(), |name| {
            names.push(OsStr::from_bytes(name.to_bytes()).to_owned());
            Ok(())
        })?;
        Ok(names)
    }
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Calls `with` for every entry but `.` and `..`, in constant memory.
fn each(
    dir: BorrowedFd<'_>,
    mut with: impl FnMut(&std::ffi::CStr) -> io::Result<()>,
) -> io::Result<()> {
    // An own open file: the place of reading belongs to it.
    let fd = openat(dir, ".", DIRECTORY, Mode::empty())?;
    let mut buffer = vec![MaybeUninit::uninit(); ENTRIES];
    let mut entries = RawDir::new(&fd, &mut buffer);
    while let Some(entry) = entries.next() {
        match entry {
            Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
            Ok(entry) => with(entry.file_name())?,
            // The directory was removed meanwhile.
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
