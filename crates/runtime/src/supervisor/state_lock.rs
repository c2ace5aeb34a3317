//! The lock on the state directory, and the news that it was deleted.
//!
//! A supervisor whose state was deleted can be reached by nobody: an agent that starts later finds no
//! socket, starts another supervisor, and runs containers beside those of this one. So the supervisor
//! ends, with its containers, as soon as no agent is connected.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{FlockOperation, flock};

use super::LOCK;

/// Held for the supervisor's life; close-on-exec keeps it from every child.
pub(super) struct StateLock {
    file: File,
    watch: OwnedFd,
}

impl StateLock {
    /// `None` when another supervisor holds it. The directory must exist: the agent makes it, and a
    /// supervisor that comes after its deletion must not make it again.
    pub(super) fn take(state_dir: &Path) -> io::Result<Option<StateLock>> {
        let path = state_dir.join(LOCK);
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(None);
        }
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        // Through the descriptor: the name may belong to another file already.
        let own = format!("/proc/self/fd/{}", file.as_raw_fd());
        inotify::add_watch(&watch, own, WatchFlags::ATTRIB | WatchFlags::DELETE_SELF)?;
        let lock = StateLock { file, watch };
        Ok(Some(lock).filter(|lock| !lock.is_deleted()))
    }

    /// Whether the file has no name left.
    pub(super) fn is_deleted(&self) -> bool {
        self.file.metadata().is_ok_and(|meta| meta.nlink() == 0)
    }

    /// Readable after every change of the file's names.
    pub(super) fn changes(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }

    /// Takes the news, whose text says nothing that [`StateLock::is_deleted`] does not.
    pub(super) fn drain(&self) {
        let mut buffer = [0u8; 512];
        while rustix::io::read(&self.watch, &mut buffer).is_ok_and(|count| count > 0) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deleted_lock_is_noticed_and_a_touched_one_is_not() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let lock = StateLock::take(dir.path()).unwrap().unwrap();
        assert!(StateLock::take(dir.path()).unwrap().is_none(), "held");
        std::fs::set_permissions(
            dir.path().join(LOCK),
            std::os::unix::fs::PermissionsExt::from_mode(0o640),
        )
        .unwrap();
        lock.drain();
        assert!(!lock.is_deleted());
        std::fs::remove_file(dir.path().join(LOCK)).unwrap();
        let mut buffer = [0u8; 64];
        assert!(rustix::io::read(lock.changes(), &mut buffer).unwrap() > 0);
        assert!(lock.is_deleted());
    }

    #[test]
    fn a_directory_that_is_gone_is_not_made_again() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let gone = dir.path().join("gone");
        let error = StateLock::take(&gone).map(|lock| lock.is_some()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(!gone.exists());
    }
}
