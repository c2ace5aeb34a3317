//! Files that are disks: made, copied, grown.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{FallocateFlags, SeekFrom};

use crate::state::Allocation;

/// Bytes that are copied at once, where the kernel cannot do it.
const CHUNK: usize = 1 << 20;

fn create(path: &Path) -> io::Result<File> {
    std::fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

pub(crate) fn open(path: &Path) -> io::Result<File> {
    std::fs::OpenOptions::new().read(true).write(true).open(path)
}

/// A disk of zeros.
pub(crate) fn make(path: &Path, size: u64, allocation: Allocation) -> io::Result<()> {
    let file = create(path)?;
    resize(&file, size, allocation)
}

/// Makes a disk longer, and takes its blocks where that is asked for.
pub(crate) fn resize(file: &File, size: u64, allocation: Allocation) -> io::Result<()> {
    if file.metadata()?.len() < size {
        file.set_len(size)?;
    }
    if allocation == Allocation::Thick {
        rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size)?;
    }
    file.sync_all()
}

/// Makes all of it zeros again.
pub(crate) fn erase(file: &File, allocation: Allocation) -> io::Result<()> {
    let size = file.metadata()?.len();
    rustix::fs::fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, size)?;
    resize(file, size, allocation)
}

/// Whether anything was ever written.
pub(crate) fn has_data(file: &File) -> io::Result<bool> {
    Ok(next_data(file, 0)?.is_some())
}

/// Bytes of the disk that are in use.
pub(crate) fn allocated(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.blocks() * 512)
}

/// Copies a disk into a new one that reads as zeros; how many bytes the two share. Shares all blocks where the
/// file system can (`FICLONE`); else data is copied and holes stay holes.
pub(crate) fn copy(from: &File, to: &File) -> io::Result<u64> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        to.sync_all()?;
        return allocated(from);
    }
    let mut at = 0;
    while let Some((start, end)) = next_data(from, at)? {
        copy_range(from, to, start, end)?;
        at = end;
    }
    to.sync_all()?;
    Ok(0)
}

/// Whether copies in this directory share their blocks, and so take no time.
pub(crate) fn shares_blocks(directory: &Path) -> bool {
    let shared = || -> io::Result<()> {
        let (from, to) = (unnamed(directory)?, unnamed(directory)?);
        from.write_all_at(&[1; 4096], 0)?;
        Ok(rustix::fs::ioctl_ficlone(&to, &from)?)
    };
    shared().is_ok()
}

fn unnamed(directory: &Path) -> io::Result<File> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(directory)
}

/// The next range that may hold something else than zeros.
fn next_data(file: &File, at: u64) -> io::Result<Option<(u64, u64)>> {
    let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Err(rustix::io::Errno::NXIO) => return Ok(None),
        start => start?,
    };
    Ok(Some((start, rustix::fs::seek(file, SeekFrom::Hole(start))?)))
}

fn copy_range(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut at = start;
    while at < end {
        let want = CHUNK.min((end - at) as usize);
        from.read_exact_at(&mut buffer[..want], at)?;
        to.write_all_at(&buffer[..want], at)?;
        at += want as u64;
    }
    Ok(())
}

/// Bytes that users may still take from the file system of a directory.
pub(crate) fn free(directory: &Path) -> io::Result<u64> {
    let about = rustix::fs::statvfs(directory)?;
    Ok(about.f_bavail * about.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_have_the_data_and_the_holes() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("1"), directory.path().join("2"));
        make(&one, 64 << 20, Allocation::Thin).unwrap();
        let from = open(&one).unwrap();
        assert!(!has_data(&from).unwrap());
        from.write_all_at(b"front", 0).unwrap();
        from.write_all_at(b"back", (64 << 20) - 4).unwrap();
        make(&two, 65 << 20, Allocation::Thin).unwrap();
        let to = open(&two).unwrap();
        copy(&from, &to).unwrap();
        let mut read = [0; 5];
        to.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(&read, b"front");
        to.read_exact_at(&mut read[..4], (64 << 20) - 4).unwrap();
        assert_eq!(&read[..4], b"back");
        assert!(allocated(&to).unwrap() < 1 << 20, "holes stay holes");
        assert!(make(&two, 1, Allocation::Thin).is_err(), "nothing is overwritten");
    }

    #[test]
    fn thick_disks_have_their_blocks_and_read_as_zeros() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("1");
        make(&path, 8 << 20, Allocation::Thick).unwrap();
        let file = open(&path).unwrap();
        assert!(allocated(&file).unwrap() >= 8 << 20);
        file.write_all_at(b"x", 4096).unwrap();
        erase(&file, Allocation::Thick).unwrap();
        let mut read = [9];
        file.read_exact_at(&mut read, 4096).unwrap();
        assert_eq!(read, [0]);
        assert!(allocated(&file).unwrap() >= 8 << 20);
    }
}
