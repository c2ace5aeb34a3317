//! The file operations the log needs, so that tests can put a disk that loses power below it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A flat folder of files.
pub(super) trait Disk: Send {
    /// Names and sizes of what is in the folder.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// A new file with `size` bytes of space set aside, so that writing them cannot fail for
    /// want of space.
    fn create(&self, name: &str, size: u64) -> io::Result<Box<dyn DiskFile>>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_names(&self) -> io::Result<()>;
    /// Bytes that could still be set aside.
    fn available(&self) -> io::Result<u64>;
    /// For messages.
    fn path(&self, name: &str) -> String;
}

/// One open file. Reads may be short at the end.
pub(super) trait DiskFile: Send {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
    fn size(&self) -> io::Result<u64>;
}

impl dyn DiskFile {
    /// Everything from `at`, at most `count` bytes.
    pub(super) fn read_range(&self, at: u64, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        let mut read = 0;
        while read < count {
            match self.read_at(&mut bytes[read..], at + read as u64)? {
                0 => break,
                more => read += more,
            }
        }
        bytes.truncate(read);
        Ok(bytes)
    }
}

/// A real folder, held by this process alone until it is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Locked; the kernel lets go of it when the process ends, however it ends.
    _lock: File,
}

/// Holds no data: its lock says who uses the folder.
pub(super) const LOCK: &str = "lock";
const LOCK_TRIES: u32 = 25;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

impl Folder {
    /// Creates the folder when it is missing. Its content is for its owner only: it holds secrets.
    pub(super) fn lock(path: &Path) -> Result<Folder, String> {
        let access = |e: io::Error| format!("{e}; give this user read and write access to it");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(access)?;
        foreign(path).map_err(access)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join(LOCK))
            .map_err(access)?;
        hold(&lock)?;
        Ok(Folder { path: path.into(), _lock: lock })
    }
}

/// Takes the lock. A child process shares it from its fork until its exec, and a process that was
/// just killed keeps it until it is gone: both take milliseconds, so a held lock is tried again.
fn hold(lock: &File) -> Result<(), String> {
    for _ in 0..LOCK_TRIES {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(e)) => return Err(e.to_string()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
        }
    }
    Err("another process has it open; stop that one first".into())
}

/// Reads the names once before anything is created, so that an unreadable folder stays untouched.
fn foreign(path: &Path) -> io::Result<()> {
    std::fs::read_dir(path)?.try_for_each(|entry| entry.map(drop))
}

impl Disk for Folder {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let entry = |entry: io::Result<std::fs::DirEntry>| {
            let entry = entry?;
            Ok((entry.file_name().to_string_lossy().into_owned(), entry.metadata()?.len()))
        };
        std::fs::read_dir(&self.path)?.map(entry).collect()
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.path.join(name))?;
        Ok(Box::new(file))
    }

    fn create(&self, name: &str, size: u64) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let file = file.open(self.path.join(name))?;
        match allocate(&file, size) {
            Ok(()) => Ok(Box::new(file)),
            Err(e) => {
                self.remove(name)?;
                Err(e)
            }
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn available(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.path)?;
        Ok(stat.f_bavail * stat.f_frsize)
    }

    fn path(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }
}

/// Sets space aside. Where the file system cannot promise space, zeros are written.
fn allocate(file: &File, size: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, size) {
        Err(rustix::io::Errno::OPNOTSUPP) => {
            let zeros = vec![0; 1 << 16];
            (0..size).step_by(zeros.len()).try_for_each(|at| {
                let count = zeros.len().min((size - at) as usize);
                file.write_all_at(&zeros[..count], at)
            })?;
        }
        other => other?,
    }
    file.sync_all()
}

impl DiskFile for File {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        loop {
            match FileExt::read_at(self, buffer, at) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}
