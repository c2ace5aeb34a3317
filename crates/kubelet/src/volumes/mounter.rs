//! Mounts of volumes, as a port: tests of plugins need neither root nor devices.
//!
//! Paths lie below directories that only the kubelet writes to; what containers own lies below the mount.

use std::fmt::Debug;
use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount};

pub(crate) trait Mounter: Send + Sync + Debug {
    fn is_mount_point(&self, path: &Path) -> io::Result<bool>;
    fn bind(&self, from: &Path, to: &Path, read_only: bool) -> io::Result<()>;
    fn mount(&self, mount: &NewMount<'_>) -> io::Result<()>;
}

/// A new mount of a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewMount<'a> {
    pub(crate) source: &'a str,
    pub(crate) target: &'a Path,
    pub(crate) kind: &'a str,
    pub(crate) read_only: bool,
    /// Options of the file system, comma-separated.
    pub(crate) data: &'a str,
}

/// The kernel's.
#[derive(Debug, Default)]
pub(crate) struct System;

impl Mounter for System {
    /// A path that does not exist is none.
    fn is_mount_point(&self, path: &Path) -> io::Result<bool> {
        match statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS) {
            Ok(found) => Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn bind(&self, from: &Path, to: &Path, read_only: bool) -> io::Result<()> {
        mount_bind(from, to)?;
        if read_only {
            let flags = MountFlags::BIND | MountFlags::RDONLY;
            if let Err(error) = mount_remount(to, flags, c"") {
                unmount(to, UnmountFlags::DETACH)?;
                return Err(error.into());
            }
        }
        Ok(())
    }

    fn mount(&self, new: &NewMount<'_>) -> io::Result<()> {
        let flags = if new.read_only { MountFlags::RDONLY } else { MountFlags::empty() };
        let data = std::ffi::CString::new(new.data)?;
        Ok(mount(new.source, new.target, new.kind, flags, Some(data.as_c_str()))?)
    }
}

#[cfg(test)]
pub(super) mod double {
    use std::collections::BTreeSet;
    use std::path::PathBuf;
    use std::sync::Mutex;

    use super::*;

    /// Mounts nothing, and notes what it was asked.
    #[derive(Debug, Default)]
    pub(crate) struct Recorder {
        pub(crate) asked: Mutex<Vec<String>>,
        pub(crate) mounted: Mutex<BTreeSet<PathBuf>>,
        /// Every mount fails with it.
        pub(crate) fails: Option<io::ErrorKind>,
    }

    impl Recorder {
        fn note(&self, what: String, target: &Path) -> io::Result<()> {
            self.asked.lock().unwrap().push(what);
            if let Some(kind) = self.fails {
                return Err(kind.into());
            }
            self.mounted.lock().unwrap().insert(target.to_owned());
            Ok(())
        }

        pub(crate) fn asked(&self) -> Vec<String> {
            self.asked.lock().unwrap().clone()
        }
    }

    impl Mounter for Recorder {
        fn is_mount_point(&self, path: &Path) -> io::Result<bool> {
            Ok(self.mounted.lock().unwrap().contains(path))
        }

        fn bind(&self, from: &Path, to: &Path, read_only: bool) -> io::Result<()> {
            let name = to.file_name().unwrap().to_string_lossy();
            self.note(format!("bind {} on {name}, read-only: {read_only}", from.display()), to)
        }

        fn mount(&self, new: &NewMount<'_>) -> io::Result<()> {
            let NewMount { source, kind, read_only, data, .. } = new;
            self.note(format!("{kind} {source} {data}, read-only: {read_only}"), new.target)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::beneath;

    #[test]
    fn a_read_only_bind_is_one_and_its_end_leaves_the_source() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, pods) = (dir.path().join("disk"), dir.path().join("pods"));
        let to = pods.join("u/pv");
        std::fs::create_dir(&disk).unwrap();
        std::fs::create_dir_all(&to).unwrap();
        std::fs::write(disk.join("data"), "x").unwrap();
        assert!(!System.is_mount_point(&to).unwrap());
        assert!(!System.is_mount_point(&pods.join("nothing")).unwrap());
        System.bind(&disk, &to, true).unwrap();
        assert!(System.is_mount_point(&to).unwrap());
        assert_eq!(std::fs::read_to_string(to.join("data")).unwrap(), "x");
        let refused = std::fs::write(to.join("more"), "y").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
        beneath::unmount_and_remove(&pods, Path::new("u")).unwrap();
        assert!(!to.exists());
        assert_eq!(std::fs::read_to_string(disk.join("data")).unwrap(), "x");
    }
}
