//! Directory trees that containers and images have made: measured and removed, however deep they are.
//!
//! A container can nest directories deeper than any path, and rename them while we walk. So nothing here
//! recurses, keeps a descriptor for each level, follows a link, or leaves the file system it began on.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, openat, openat2, renameat, statat, unlinkat,
};
use rustix::io::Errno;

/// Bytes of the unit that `st_blocks` counts in.
const BLOCK: u64 = 512;
/// Bytes of a relative path after which its directory becomes a start of its own: paths end at 4096.
const LONG_PATH: usize = 1024;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Times that a resolution is tried again: the kernel gives up (EAGAIN) when anything on the machine was
/// renamed or mounted while it went through a `..`.
const RETRIES: usize = 128;

/// `openat2`, again while others rename and mount.
pub(crate) fn open_resolved(
    dir: impl AsFd,
    path: &Path,
    flags: OFlags,
    resolve: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    for _ in 0..RETRIES {
        match openat2(&dir, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// The names in a directory, without `.` and `..`.
fn names(dir: impl AsFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if ![&b"."[..], b".."].contains(&entry.file_name().to_bytes()) {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// Removes a tree; one that is not there is no error. A mount in it is one.
///
/// Directories below the first level are moved up to the top before they are emptied, so that depth
/// costs nothing.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let root = match openat(rustix::fs::CWD, path, DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        // A file or a link: removed as itself.
        Err(Errno::NOTDIR | Errno::LOOP) => return std::fs::remove_file(path),
        other => other?,
    };
    let mut moved = 0u64;
    loop {
        let found = names(&root)?;
        if found.is_empty() {
            break;
        }
        for name in found {
            match unlinkat(&root, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR) => empty(&root, &name, &mut moved)?,
                Err(e) => return Err(e.into()),
            }
        }
    }
    std::fs::remove_dir(path)
}

/// Empties a directory of the top level and removes it; its own directories move up.
fn empty(root: &OwnedFd, name: &CString, moved: &mut u64) -> io::Result<()> {
    let dir = openat(root, name, DIRECTORY, Mode::empty())?;
    for inner in names(&dir)? {
        match unlinkat(&dir, &inner, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => loop {
                *moved += 1;
                match renameat(&dir, &inner, root, format!(".removed-{moved}")) {
                    // Someone has given that name to something.
                    Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR | Errno::ISDIR) => {}
                    done => break done?,
                }
            },
            Err(e) => return Err(e.into()),
        }
    }
    Ok(unlinkat(root, name, AtFlags::REMOVEDIR)?)
}

/// Bytes and inodes of a tree that may change meanwhile: something that is gone or moved is skipped.
pub(crate) fn usage(path: &Path) -> (u64, u64) {
    let Ok(root) = openat(rustix::fs::CWD, path, DIRECTORY, Mode::empty()) else { return (0, 0) };
    let mut todo = vec![(Rc::new(root), PathBuf::from("."))];
    let (mut bytes, mut inodes) = (0, 0);
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    while let Some((base, path)) = todo.pop() {
        let Ok(dir) = open_resolved(&base, &path, DIRECTORY, resolve) else { continue };
        let Ok(found) = names(&dir) else { continue };
        let long = path.as_os_str().len() > LONG_PATH;
        let mut below = Vec::new();
        for name in found {
            let Ok(stat) = statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK;
            inodes += 1;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                below.push(PathBuf::from(OsStr::from_bytes(name.to_bytes())));
            }
        }
        let base = if long { Rc::new(dir) } else { base };
        let at = |name: PathBuf| if long { name } else { path.join(name) };
        todo.extend(below.into_iter().map(|name| (base.clone(), at(name))));
    }
    (bytes, inodes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::mkdirat;

    use super::*;

    /// Deeper than paths and descriptors reach, with a file at the bottom.
    fn deep(root: &Path, levels: usize) {
        fs::create_dir(root).unwrap();
        let mut dir = openat(rustix::fs::CWD, root, DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..levels {
            mkdirat(&dir, "d", Mode::from_raw_mode(0o755)).unwrap();
            fs::write(format!("/proc/self/fd/{}/f", std::os::fd::AsRawFd::as_raw_fd(&dir)), "x")
                .unwrap();
            dir = openat(&dir, "d", DIRECTORY, Mode::empty()).unwrap();
        }
    }

    #[test]
    fn depth_costs_nothing() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let root = dir.path().join("deep");
        deep(&root, 2_500);
        let (bytes, inodes) = usage(&root);
        assert_eq!(inodes, 5_000);
        assert!(bytes >= 2_500 * 4096);
        remove(&root).unwrap();
        assert!(!root.exists());
    }

    #[test]
    fn links_are_not_followed() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (root, kept) = (dir.path().join("root"), dir.path().join("kept"));
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), vec![1; 1 << 20]).unwrap();
        std::os::unix::fs::symlink(&kept, root.join("link")).unwrap();
        std::os::unix::fs::symlink(&kept, root.join("a/link")).unwrap();
        fs::create_dir_all(root.join(".removed-1/.removed-2")).unwrap();
        assert!(usage(&root).0 < 1 << 20);
        remove(&root).unwrap();
        remove(&root).unwrap();
        std::os::unix::fs::symlink(&kept, &root).unwrap();
        remove(&root).unwrap();
        assert!(kept.join("file").exists() && root.symlink_metadata().is_err());
    }
}
