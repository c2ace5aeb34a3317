//! The sockets in the registration folder and below it, and news of them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

/// News that come together are looked at together.
const PAUSE: Duration = Duration::from_millis(50);
/// Folders below each other, and entries in all of them.
const DEPTH_MAX: usize = 4;
const ENTRIES_MAX: usize = 1000;

/// One socket file: another one of the same name is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    inode: u64,
    changed: (i64, i64),
}

/// Makes the folder when it is missing. Names that begin with a dot do not count.
pub(super) fn list(folder: &Path) -> io::Result<BTreeMap<PathBuf, Identity>> {
    let mut found = Found::default();
    fs::create_dir_all(folder)?;
    found.walk(folder, 0)?;
    Ok(found.sockets)
}

#[derive(Default)]
struct Found {
    sockets: BTreeMap<PathBuf, Identity>,
    folders: Vec<PathBuf>,
    entries: usize,
}

impl Found {
    fn walk(&mut self, folder: &Path, depth: usize) -> io::Result<()> {
        self.folders.push(folder.to_owned());
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            self.entries += 1;
            if self.entries > ENTRIES_MAX {
                return Err(io::Error::other(format!("more than {ENTRIES_MAX} entries")));
            }
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            // What goes away meanwhile is not there. Links are not followed.
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() && depth < DEPTH_MAX {
                // A folder that cannot be read hides no other.
                if let Err(error) = self.walk(&entry.path(), depth + 1) {
                    tracing::debug!(%error, folder = %entry.path().display(), "folder not read");
                }
            } else if meta.file_type().is_socket() {
                let changed = (meta.ctime(), meta.ctime_nsec());
                self.sockets.insert(entry.path(), Identity { inode: meta.ino(), changed });
            }
        }
        Ok(())
    }
}

/// `None` when it cannot be watched: it is read from time to time.
pub(super) fn watch(folder: &Path) -> Option<AsyncFd<OwnedFd>> {
    let begun = || -> io::Result<AsyncFd<OwnedFd>> {
        let mut found = Found::default();
        fs::create_dir_all(folder)?;
        found.walk(folder, 0)?;
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let flags = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF;
        for folder in &found.folders {
            inotify::add_watch(&watch, folder, flags)?;
        }
        // SAFETY: the descriptor is owned by what is registered, and so open for as long as it is.
        unsafe { AsyncFd::register(watch) }.map_err(io::Error::from)
    };
    begun().inspect_err(|error| tracing::debug!(%error, "plugin sockets not watched")).ok()
}

pub(super) async fn changed(watch: Option<AsyncFd<OwnedFd>>) {
    match watch {
        Some(watch) => {
            drop(watch.readable().await);
            tokio::time::sleep(PAUSE).await;
        }
        None => std::future::pending().await,
    }
}
