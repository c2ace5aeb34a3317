//! A directory tree as a root: no link and no `..` leads out of it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags, Stat, openat2};
use rustix::io::Errno;

/// Times that a resolution is tried again: the kernel gives up (EAGAIN) when anything on the machine was
/// renamed or mounted while it went through a `..`.
const RETRIES: usize = 128;

pub(crate) struct Root(OwnedFd);

impl Root {
    pub(crate) fn open(path: &Path) -> io::Result<Root> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Root(rustix::fs::open(path, flags, Mode::empty())?))
    }

    fn at(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let path = path.trim_start_matches('/');
        let path = if path.is_empty() { "." } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..RETRIES {
            match openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN) => {}
                other => return Ok(other?),
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// A directory, links followed.
    pub(crate) fn directory(&self, path: &str) -> io::Result<OwnedFd> {
        self.at(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// The attributes of a path, links followed.
    pub(crate) fn stat(&self, path: &str) -> io::Result<Stat> {
        Ok(rustix::fs::fstat(self.at(path, OFlags::PATH)?)?)
    }

    pub(crate) fn file(&self, path: &str) -> io::Result<File> {
        // A FIFO must not keep us waiting.
        Ok(File::from(self.at(path, OFlags::RDONLY | OFlags::NONBLOCK)?))
    }

    /// A small text; one that is not there is empty.
    pub(crate) fn text(&self, path: &str) -> io::Result<String> {
        /// Bytes of `/etc/passwd` and the like.
        const LIMIT: u64 = 4 << 20;
        let file = match self.file(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
            other => other?,
        };
        let mut bytes = Vec::new();
        file.take(LIMIT).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A directory that is made, with its parents, where it is not there; `made` is told of each new one.
    pub(crate) fn ensure(
        &self,
        path: &str,
        made: &mut dyn FnMut(&OwnedFd, &str) -> io::Result<()>,
    ) -> io::Result<OwnedFd> {
        let mut so_far = String::new();
        let mut dir = self.directory("")?;
        for name in path.split('/').filter(|n| !n.is_empty() && *n != ".") {
            so_far = format!("{so_far}/{name}");
            dir = match self.directory(&so_far) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o755))?;
                    made(&dir, name)?;
                    self.directory(&so_far)?
                }
                other => other?,
            };
        }
        Ok(dir)
    }
}

/// The names in a directory, sorted, without `.` and `..`.
pub(crate) fn names(dir: impl AsFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort();
    Ok(names)
}

pub(crate) fn lstat(dir: impl AsFd, name: &std::ffi::OsStr) -> io::Result<Stat> {
    Ok(rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?)
}
