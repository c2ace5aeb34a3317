//! A layer's tar stream onto the disk, in the form that overlayfs reads.
//!
//! Every name is resolved with `RESOLVE_IN_ROOT` from the layer's own directory: neither `..` nor a
//! symbolic link of the archive leads out of it. Whiteouts become overlay's: `.wh.x` a 0:0 device,
//! `.wh..wh..opq` an attribute of its directory. What is not done: an entry that goes through a
//! symbolic link of a *lower* layer becomes a directory hiding that link.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use tar::{Archive, Entry, EntryType};

use super::budget::{self, Records};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// The PAX prefix under which extended attributes travel.
const PAX_XATTR: &str = "SCHILY.xattr.";

/// What a layer may hold.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) bytes: u64,
    pub(super) entries: u64,
}

/// Unpacks all of `stream` below `root`; returns the bytes of regular files.
pub(super) fn unpack(stream: impl Read, root: &Path) -> io::Result<u64> {
    let limits = Limits { bytes: budget::MAX_BYTES, entries: budget::MAX_ENTRIES };
    unpack_within(stream, root, limits)
}

/// Unpacks an archive that is no layer: whiteouts' names mean nothing.
pub(super) fn unpack_plain(stream: impl Read, root: &Path) -> io::Result<u64> {
    let limits = Limits { bytes: budget::MAX_BYTES, entries: budget::MAX_ENTRIES };
    run(stream, root, limits, false)
}

pub(super) fn unpack_within(stream: impl Read, root: &Path, limits: Limits) -> io::Result<u64> {
    run(stream, root, limits, true)
}

fn run(stream: impl Read, root: &Path, limits: Limits, whiteouts: bool) -> io::Result<u64> {
    let root =
        rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut unpacker =
        Unpacker { root, parent: None, times: Vec::new(), bytes: 0, limits, whiteouts };
    let mut archive = Archive::new(Records::new(stream));
    for (number, entry) in (1..).zip(archive.entries()?) {
        if number > limits.entries {
            return Err(budget::exceeded(&format!("more than {} entries", limits.entries)));
        }
        let mut entry = entry?;
        // A comment on all entries, as `git archive` writes it.
        if entry.header().entry_type().is_pax_global_extensions() {
            continue;
        }
        let path = clean(&entry.path()?)?;
        unpacker
            .entry(&mut entry, &path)
            .map_err(|e| io::Error::new(e.kind(), format!("entry {:?}: {e}", path.display())))?;
    }
    unpacker.finish()
}

struct Unpacker {
    root: OwnedFd,
    /// The directory of the last entry: the next one is mostly in it too.
    parent: Option<(PathBuf, OwnedFd)>,
    /// Directories' times, set last because making files changes them.
    times: Vec<(PathBuf, i64)>,
    bytes: u64,
    limits: Limits,
    /// `.wh.` names hide what lies below.
    whiteouts: bool,
}

/// The name without `.`, leading `/`; `..` is refused.
fn clean(path: &Path) -> io::Result<PathBuf> {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                let what = format!("{} leads out of the layer", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
            _ => {}
        }
    }
    Ok(out)
}

fn c(name: &OsStr) -> io::Result<CString> {
    Ok(CString::new(name.as_bytes())?)
}

impl Unpacker {
    fn open_dir(&self, path: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        Ok(crate::tree::open_resolved(&self.root, path, flags, resolve)?)
    }

    /// Opens a directory, making it and its parents when the archive does not list them.
    fn ensure_dir(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.open_dir(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return self.open_dir(path);
        };
        let dir = self.ensure_dir(parent)?;
        rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o755))?;
        self.open_dir(path)
    }

    fn entry<R: Read>(&mut self, entry: &mut Entry<'_, R>, path: &Path) -> io::Result<()> {
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            return self.root_entry(entry);
        };
        let parent = path.parent().unwrap_or(Path::new("")).to_owned();
        let dir = match self.parent.take() {
            Some((at, dir)) if at == parent => dir,
            _ => self.ensure_dir(&parent)?,
        };
        let done = self.entry_in(entry, path, &dir, &name);
        // What replaces a directory, or makes one, may have changed what the cached one means.
        if done.is_ok() && entry.header().entry_type().is_file() {
            self.parent = Some((parent, dir));
        }
        done
    }

    fn entry_in<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        path: &Path,
        dir: &OwnedFd,
        name: &OsStr,
    ) -> io::Result<()> {
        if self.whiteouts && name.as_bytes() == OPAQUE {
            return set_xattr(dir, c"trusted.overlay.opaque", b"y");
        }
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT).filter(|_| self.whiteouts) {
            let hidden = OsStr::from_bytes(hidden);
            self.clear(dir, hidden, path)?;
            return Ok(rustix::fs::mknodat(
                dir,
                hidden,
                FileType::CharacterDevice,
                Mode::empty(),
                0,
            )?);
        }
        let kind = entry.header().entry_type();
        let mode = Mode::from_raw_mode(entry.header().mode()? & 0o7777);
        if kind.is_dir() {
            match rustix::fs::mkdirat(dir, name, mode) {
                Err(rustix::io::Errno::EXIST) if !self.is_dir(dir, name) => {
                    rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
                    rustix::fs::mkdirat(dir, name, mode)?;
                }
                Err(e) if e != rustix::io::Errno::EXIST => return Err(e.into()),
                _ => {}
            }
            self.times.push((path.to_owned(), mtime(entry)));
            return self.metadata(entry, dir, name, mode, kind);
        }
        self.clear(dir, name, path)?;
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::CLOEXEC
                    | OFlags::NOFOLLOW;
                let mut file =
                    File::from(rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))?);
                let left = self.limits.bytes - self.bytes;
                self.bytes += io::copy(&mut entry.take(left + 1), &mut file)?;
                if self.bytes > self.limits.bytes {
                    let what = format!("more than {} bytes", self.limits.bytes);
                    return Err(budget::exceeded(&what));
                }
            }
            EntryType::Symlink => rustix::fs::symlinkat(&*link(entry)?, dir, name)?,
            EntryType::Link => return self.hard_link(&clean(&link(entry)?)?, dir, name),
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                node(entry, kind, dir, name, mode)?
            }
            other => {
                let what = format!("entry type {other:?} is not supported");
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
        }
        self.metadata(entry, dir, name, mode, kind)
    }

    fn is_dir(&self, dir: &OwnedFd, name: &OsStr) -> bool {
        rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory)
    }

    /// Removes what an earlier entry of the same name made.
    fn clear(&self, dir: &OwnedFd, name: &OsStr, path: &Path) -> io::Result<()> {
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(rustix::io::Errno::ISDIR) => {
                let what = format!("{} replaces a directory of the same layer", path.display());
                rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
                    .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, what))
            }
            Err(e) => Err(e.into()),
        }
    }

    fn hard_link(&self, target: &Path, dir: &OwnedFd, name: &OsStr) -> io::Result<()> {
        let parent = self.open_dir(target.parent().unwrap_or(Path::new("")))?;
        let Some(file) = target.file_name() else {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        };
        Ok(rustix::fs::linkat(&parent, file, dir, name, AtFlags::empty())?)
    }

    fn root_entry<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> io::Result<()> {
        let dir = self.open_dir(Path::new(""))?;
        let mode = Mode::from_raw_mode(entry.header().mode()? & 0o7777);
        rustix::fs::fchmod(&dir, mode)?;
        Ok(rustix::fs::fchown(&dir, Some(uid(entry)?), Some(gid(entry)?))?)
    }

    /// Owner first: changing it clears the setuid bit and capabilities.
    fn metadata<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        dir: &OwnedFd,
        name: &OsStr,
        mode: Mode,
        kind: EntryType,
    ) -> io::Result<()> {
        let (owner, group) = (uid(entry)?, gid(entry)?);
        rustix::fs::chownat(dir, name, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
        if kind != EntryType::Symlink {
            rustix::fs::chmodat(dir, name, mode, AtFlags::empty())?;
        }
        if let Some(extensions) = entry.pax_extensions()? {
            for extension in extensions {
                let extension = extension?;
                let Some(key) = extension.key().ok().and_then(|k| k.strip_prefix(PAX_XATTR)) else {
                    continue;
                };
                // An archive must not speak to overlayfs itself.
                if key.starts_with("trusted.overlay.") || kind == EntryType::Symlink {
                    continue;
                }
                let path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
                let (path, key) = (c(path.as_os_str())?, CString::new(key)?);
                rustix::fs::lsetxattr(&path, &key, extension.value_bytes(), XattrFlags::empty())?;
            }
        }
        if !kind.is_dir() {
            rustix::fs::utimensat(dir, name, &stamps(mtime(entry)), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    fn finish(self) -> io::Result<u64> {
        for (path, time) in self.times.iter().rev() {
            // A later entry may have replaced the directory.
            if let Ok(dir) = self.open_dir(path) {
                rustix::fs::futimens(&dir, &stamps(*time))?;
            }
        }
        Ok(self.bytes)
    }
}

fn set_xattr(fd: &OwnedFd, key: &std::ffi::CStr, value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(fd, key, value, XattrFlags::empty())?)
}

fn link<R: Read>(entry: &Entry<'_, R>) -> io::Result<PathBuf> {
    let name = entry.link_name()?;
    name.map(|n| n.into_owned()).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

fn node<R: Read>(
    entry: &Entry<'_, R>,
    kind: EntryType,
    dir: &OwnedFd,
    name: &OsStr,
    mode: Mode,
) -> io::Result<()> {
    let (file_type, device) = match kind {
        EntryType::Fifo => (FileType::Fifo, 0),
        _ => {
            let header = entry.header();
            let number = |n: io::Result<Option<u32>>| n.map(Option::unwrap_or_default);
            let device =
                rustix::fs::makedev(number(header.device_major())?, number(header.device_minor())?);
            let block = kind == EntryType::Block;
            (if block { FileType::BlockDevice } else { FileType::CharacterDevice }, device)
        }
    };
    Ok(rustix::fs::mknodat(dir, name, file_type, mode, device)?)
}

fn uid<R: Read>(entry: &Entry<'_, R>) -> io::Result<Uid> {
    Ok(Uid::from_raw(entry.header().uid()? as u32))
}

fn gid<R: Read>(entry: &Entry<'_, R>) -> io::Result<Gid> {
    Ok(Gid::from_raw(entry.header().gid()? as u32))
}

fn mtime<R: Read>(entry: &Entry<'_, R>) -> i64 {
    entry.header().mtime().map_or(0, |t| i64::try_from(t).unwrap_or(0))
}

fn stamps(seconds: i64) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}
