//! Gives a volume to a pod's `fsGroup`.
//!
//! Another pod may work in the volume at the same time: every step goes by descriptor, follows no link and
//! crosses no mount. Files that go away meanwhile are left out.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, chmodat, chownat, fstat, open,
    openat2,
};
use rustix::io::Errno;

/// Directories below each other.
const DEPTH_MAX: usize = 512;
const FILE: u32 = 0o660;
const FILE_READ_ONLY: u32 = 0o440;
const DIRECTORY: u32 = 0o2110;
const INSIDE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// What is wanted of a volume.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ownership {
    pub(crate) group: u32,
    pub(crate) read_only: bool,
    /// Nothing is done when the volume's root is right already (`OnRootMismatch`).
    pub(crate) only_on_mismatch: bool,
}

impl Ownership {
    fn mode(self, stat: &Stat) -> u32 {
        let rights = if self.read_only { FILE_READ_ONLY } else { FILE };
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        rights | if directory { DIRECTORY } else { 0 }
    }

    fn fits(self, root: &Stat) -> bool {
        let wanted = self.mode(root);
        root.st_gid == self.group && root.st_mode & wanted == wanted
    }

    /// Works through the tree; not for the async workers. How many files it looked at.
    pub(crate) fn apply(self, root: &Path) -> io::Result<u64> {
        let root = open(root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let stat = fstat(&root)?;
        if self.only_on_mismatch && self.fits(&stat) {
            return Ok(0);
        }
        let mut count = 0;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            self.below(root.as_fd(), 0, &mut count)?;
        }
        // The root last: it is right only when all below it is.
        self.one(&root, &stat)?;
        Ok(count + 1)
    }

    fn below(self, dir: BorrowedFd<'_>, depth: usize, count: &mut u64) -> io::Result<()> {
        if depth > DEPTH_MAX {
            return Err(io::Error::other(format!("more than {DEPTH_MAX} directories deep")));
        }
        for entry in Dir::read_from(reopened(dir)?)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let held = match openat2(dir, name, flags, Mode::empty(), INSIDE) {
                Ok(held) => held,
                // Gone, or a link in its place, or another mount.
                Err(Errno::NOENT | Errno::LOOP | Errno::XDEV) => continue,
                Err(error) => return Err(error.into()),
            };
            *count += 1;
            let stat = fstat(&held)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                self.below(held.as_fd(), depth + 1, count)?;
            }
            self.one(&held, &stat)?;
        }
        Ok(())
    }

    /// The owner first: a change of owner clears the set-id bits. A file system that has no owners is no
    /// reason to refuse the volume (upstream logs and goes on).
    fn one(self, held: &OwnedFd, stat: &Stat) -> io::Result<()> {
        let group = Some(Gid::from_raw(self.group));
        let owned = chownat(held, "", None, group, AtFlags::EMPTY_PATH);
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            return Ok(());
        }
        let mode = Mode::from_raw_mode((stat.st_mode & 0o7777) | self.mode(stat));
        let path = format!("/proc/self/fd/{}", held.as_raw_fd());
        let changed = chmodat(rustix::fs::CWD, path, mode, AtFlags::empty());
        for failed in [owned.err(), changed.err()].into_iter().flatten() {
            tracing::debug!(error = %failed, "group or mode of a volume's file not changed");
        }
        Ok(())
    }
}

/// The same directory, for reading.
fn reopened(dir: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat2(dir, ".", flags, Mode::empty(), INSIDE)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn of(path: &Path) -> (u32, u32) {
        let meta = std::fs::symlink_metadata(path).unwrap();
        (meta.gid(), meta.mode() & 0o7777)
    }

    #[test]
    fn all_files_are_given_to_the_group_and_links_are_not_followed() {
        let top = tempfile::tempdir().unwrap();
        let (volume, host) = (top.path().join("v"), top.path().join("host"));
        std::fs::create_dir_all(volume.join("a/b")).unwrap();
        std::fs::write(volume.join("a/b/file"), "x").unwrap();
        std::fs::write(&host, "x").unwrap();
        for (path, mode) in [(volume.join("a/b/file"), 0o600), (host.clone(), 0o600)] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        symlink(&host, volume.join("a/link")).unwrap();
        let before = of(&host);
        let wanted = Ownership { group: 1234, read_only: false, only_on_mismatch: false };
        assert_eq!(wanted.apply(&volume).unwrap(), 5);
        assert_eq!(of(&volume.join("a/b/file")), (1234, 0o660));
        assert_eq!(of(&volume.join("a/b")), (1234, 0o2775));
        assert_eq!(of(&volume), (1234, 0o2775));
        assert_eq!(of(&volume.join("a/link")).0, 1234);
        assert_eq!(of(&host), before, "what a link points to stays");
    }

    #[test]
    fn a_root_that_fits_is_enough_when_asked_so() {
        let volume = tempfile::tempdir().unwrap();
        let file = volume.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let always = Ownership { group: 1234, read_only: false, only_on_mismatch: false };
        always.apply(volume.path()).unwrap();
        std::os::unix::fs::chown(&file, None, Some(0)).unwrap();
        let mismatch = Ownership { only_on_mismatch: true, ..always };
        assert_eq!(mismatch.apply(volume.path()).unwrap(), 0);
        assert_eq!(of(&file).0, 0, "left alone");
        let other = Ownership { group: 1235, ..mismatch };
        assert_eq!(other.apply(volume.path()).unwrap(), 2);
        assert_eq!(of(&file).0, 1235);
    }
}
