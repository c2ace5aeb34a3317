//! Loop devices. Which device has which file is asked of the kernel (`/sys/block`), so that a driver that
//! starts anew finds those of its predecessor.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::ioctl;

const TRIES: u32 = 16;
/// Time for a device to be given back.
const GONE: std::time::Duration = std::time::Duration::from_secs(10);
/// Longest path of a backing file that is read.
const PATH_MAX: u64 = 4096 + 16;

/// A loop device with a file behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loop {
    /// `/dev/loop<n>`.
    pub(crate) device: PathBuf,
    /// The path of the file. Ends in ` (deleted)` when it is.
    pub(crate) file: PathBuf,
}

impl Loop {
    pub(crate) fn open(&self) -> io::Result<File> {
        std::fs::OpenOptions::new().read(true).write(true).open(&self.device)
    }

    /// Makes the device as long as its file.
    pub(crate) fn refresh(&self) -> io::Result<()> {
        ioctl::refresh_loop(&self.open()?)
    }

    /// Gives the device back; what has it open keeps it until then.
    pub(crate) fn detach(&self) -> io::Result<()> {
        match ioctl::clear_loop(&self.open()?) {
            // Gone meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(()),
            done => done,
        }
    }

    /// `major:minor`, as mount tables have it.
    pub(crate) fn number(&self) -> io::Result<String> {
        let number = std::fs::metadata(&self.device)?.rdev();
        Ok(format!("{}:{}", libc::major(number), libc::minor(number)))
    }
}

/// All loop devices with a file.
pub(crate) fn all() -> io::Result<Vec<Loop>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/sys/block")? {
        let name = entry?.file_name();
        if !name.as_encoded_bytes().starts_with(b"loop") {
            continue;
        }
        let path = Path::new("/sys/block").join(&name).join("loop/backing_file");
        // There while it has a file.
        if let Some(file) = read(&path) {
            all.push(Loop { device: Path::new("/dev").join(&name), file: file.into() });
        }
    }
    Ok(all)
}

fn read(path: &Path) -> Option<String> {
    use std::io::Read as _;
    let mut text = String::new();
    File::open(path).ok()?.take(PATH_MAX).read_to_string(&mut text).ok()?;
    Some(text.trim_end_matches('\n').to_owned())
}

/// The device of a file.
pub(crate) fn find(file: &Path) -> io::Result<Option<Loop>> {
    let file = std::fs::canonicalize(file)?;
    Ok(all()?.into_iter().find(|found| found.file == file))
}

/// A file's device, which it gets when it has none. With `until_closed` the device goes away with its last
/// user, of which the returned file is one.
pub(crate) fn attach(file: &Path, until_closed: bool) -> io::Result<(Loop, File)> {
    if let Some(found) = find(file)? {
        let open = found.open()?;
        return Ok((found, open));
    }
    let path = std::fs::canonicalize(file)?;
    let backing = std::fs::OpenOptions::new().read(true).write(true).open(&path)?;
    let control = std::fs::OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    let autoclear = if until_closed { ioctl::AUTOCLEAR } else { 0 };
    for _ in 0..TRIES {
        let device = PathBuf::from(format!("/dev/loop{}", ioctl::free_loop(&control)?));
        let made = Loop { device, file: path.clone() };
        let open = made.open()?;
        match ioctl::configure_loop(&open, &backing, ioctl::DIRECT_IO | autoclear) {
            Ok(()) => return Ok((made, open)),
            // Another process took it first.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "no loop device is free"))
}

/// Waits until a file has no device any more: the kernel gives it back a moment after the last user went.
pub(crate) fn wait_until_gone(file: &Path) -> io::Result<()> {
    let until = std::time::Instant::now() + GONE;
    while find(file)?.is_some() {
        if std::time::Instant::now() > until {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the loop device stays in use"));
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    Ok(())
}
