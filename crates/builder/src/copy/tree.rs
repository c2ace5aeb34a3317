//! Files and directories from one root to another: content, permissions, owners, times, attributes, and
//! hard links among what is copied.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use dockerfile::ignore::Patterns;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};

use super::owner::ModeChange;
use super::root::{lstat, names};

/// Directories nested deeper are refused: each level holds two descriptors.
const DEEPEST: usize = 200;
/// Bytes of an attribute.
const ATTRIBUTE_MAX: usize = 64 << 10;

/// Copies trees: with another owner or mode, without the paths that are excluded.
pub(crate) struct Copier<'a> {
    /// `None`: owners stay.
    pub(crate) owner: Option<(u32, u32)>,
    pub(crate) mode: Option<ModeChange>,
    /// By the path from the source's root.
    pub(crate) ignore: &'a Patterns,
    /// By the path from what is copied.
    pub(crate) exclude: &'a Patterns,
    /// Files with several names that are here already: the directory and the name.
    pub(crate) links: HashMap<(u64, u64), (PathBuf, OsString)>,
}

/// A place of the source: its directory, and its paths for the patterns.
pub(crate) struct From<'a> {
    pub(crate) dir: &'a OwnedFd,
    pub(crate) name: &'a OsStr,
    pub(crate) path: String,
    pub(crate) inner: String,
}

impl Copier<'_> {
    /// All of a directory into another.
    pub(crate) fn contents(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        path: &str,
        inner: &str,
        depth: usize,
    ) -> io::Result<()> {
        if depth > DEEPEST {
            return Err(io::Error::other(format!("{path} is nested deeper than {DEEPEST}")));
        }
        for name in names(from)? {
            let text = name.to_string_lossy();
            let path = super::glob::join(path, &text);
            let inner = super::glob::join(inner, &text);
            let place = From { dir: from, name: &name, path, inner };
            self.entry(&place, to, &name, depth, true)?;
        }
        Ok(())
    }

    /// One entry under a name. `overwrite`: a directory that is there gets the source's attributes.
    pub(crate) fn entry(
        &mut self,
        from: &From<'_>,
        to: &OwnedFd,
        name: &OsStr,
        depth: usize,
        overwrite: bool,
    ) -> io::Result<()> {
        let stat = lstat(from.dir, from.name)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let left_out = self.ignore.excludes(&from.path) || self.exclude.excludes(&from.inner);
        if kind == FileType::Directory {
            let all = self.ignore.excludes_all_below(&from.path)
                || self.exclude.excludes_all_below(&from.inner);
            if all {
                return Ok(());
            }
            return self.directory(from, to, name, &stat, depth, (overwrite, left_out));
        }
        if left_out || kind == FileType::Socket {
            return Ok(());
        }
        match rustix::fs::unlinkat(to, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            // As docker has it: what comes later is what is there, of whatever kind.
            Err(rustix::io::Errno::ISDIR) => remove(to, name, 0)?,
            Err(e) => return Err(e.into()),
        }
        let linked = (stat.st_dev as u64, stat.st_ino as u64);
        if stat.st_nlink > 1
            && kind == FileType::RegularFile
            && let Some((dir, first)) = self.links.get(&linked)
        {
            return Ok(rustix::fs::linkat(
                rustix::fs::CWD,
                dir.join(first),
                to,
                name,
                AtFlags::empty(),
            )?);
        }
        self.make(from, to, name, &stat, kind)?;
        if stat.st_nlink > 1 && kind == FileType::RegularFile {
            let dir = std::fs::read_link(format!("/proc/self/fd/{}", to.as_raw_fd()))?;
            self.links.insert(linked, (dir, name.to_owned()));
        }
        self.attributes(from, to, name, &stat, kind)
    }

    fn directory(
        &mut self,
        from: &From<'_>,
        to: &OwnedFd,
        name: &OsStr,
        stat: &Stat,
        depth: usize,
        (overwrite, only_if_filled): (bool, bool),
    ) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let source = rustix::fs::openat(from.dir, from.name, flags, Mode::empty())?;
        let mut made = match rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => true,
            Err(rustix::io::Errno::EXIST) => false,
            Err(e) => return Err(e.into()),
        };
        let opened = match rustix::fs::openat(to, name, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
                rustix::fs::unlinkat(to, name, AtFlags::empty())?;
                rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o755))?;
                made = true;
                rustix::fs::openat(to, name, flags, Mode::empty())
            }
            other => other,
        };
        let target = opened?;
        self.contents(&source, &target, &from.path, &from.inner, depth + 1)?;
        // A directory that is left out is there only for files that are taken back in.
        if only_if_filled && made && names(&target)?.is_empty() {
            return Ok(rustix::fs::unlinkat(to, name, AtFlags::REMOVEDIR)?);
        }
        if made || overwrite {
            self.attributes(from, to, name, stat, FileType::Directory)?;
        }
        Ok(())
    }

    fn make(
        &self,
        from: &From<'_>,
        to: &OwnedFd,
        name: &OsStr,
        stat: &Stat,
        kind: FileType,
    ) -> io::Result<()> {
        match kind {
            FileType::RegularFile => {
                let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let mut source =
                    File::from(rustix::fs::openat(from.dir, from.name, read, Mode::empty())?);
                let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let mode = Mode::from_raw_mode(0o600);
                let mut target = File::from(rustix::fs::openat(to, name, write, mode)?);
                io::copy(&mut source, &mut target)?;
            }
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(from.dir, from.name, Vec::new())?;
                rustix::fs::symlinkat(link.as_c_str(), to, name)?;
            }
            other => {
                let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
                rustix::fs::mknodat(to, name, other, mode, stat.st_rdev)?;
            }
        }
        Ok(())
    }

    /// Owner first: changing it clears the setuid bit and capabilities.
    fn attributes(
        &self,
        from: &From<'_>,
        to: &OwnedFd,
        name: &OsStr,
        stat: &Stat,
        kind: FileType,
    ) -> io::Result<()> {
        let (uid, gid) = self.owner.unwrap_or((stat.st_uid, stat.st_gid));
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        if kind != FileType::Symlink {
            let mode = stat.st_mode & 0o7777;
            let is_dir = kind == FileType::Directory;
            let mode = self.mode.as_ref().map_or(mode, |m| m.apply(mode, is_dir));
            rustix::fs::chmodat(to, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
            extended(from, to, name)?;
        }
        let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ };
        let times = Timestamps { last_access: time, last_modification: time };
        Ok(rustix::fs::utimensat(to, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

/// Removes a directory with all that is in it; no link is followed.
fn remove(dir: &OwnedFd, name: &OsStr, depth: usize) -> io::Result<()> {
    if depth > DEEPEST {
        return Err(io::Error::other(format!("directories are nested deeper than {DEEPEST}")));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inside = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    for entry in names(&inside)? {
        match rustix::fs::unlinkat(&inside, &entry, AtFlags::empty()) {
            Err(rustix::io::Errno::ISDIR) => remove(&inside, &entry, depth + 1)?,
            done => done?,
        }
    }
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}

/// Attributes that belong to the files: capabilities and users' own.
fn extended(from: &From<'_>, to: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let place = |dir: &OwnedFd, name: &OsStr| {
        PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name)
    };
    let (source, target) = (place(from.dir, from.name), place(to, name));
    let mut list = vec![0u8; ATTRIBUTE_MAX];
    let length = match rustix::fs::llistxattr(&source, &mut list) {
        Err(rustix::io::Errno::NOTSUP) => 0,
        other => other?,
    };
    let keys = list[..length].split(|b| *b == 0);
    for key in keys.filter_map(|k| std::str::from_utf8(k).ok()) {
        if key != "security.capability" && !key.starts_with("user.") {
            continue;
        }
        let mut value = vec![0u8; ATTRIBUTE_MAX];
        let length = rustix::fs::lgetxattr(&source, key, &mut value)?;
        rustix::fs::lsetxattr(&target, key, &value[..length], XattrFlags::empty())?;
    }
    Ok(())
}
