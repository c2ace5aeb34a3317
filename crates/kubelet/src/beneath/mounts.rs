//! Mounts below a directory: made on descriptors, and all undone before anything is removed.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::{BENEATH, Dir, Held, descriptor_path, resolve};

/// Rounds of unmounting: a mount may hide others, which come to light when it is gone.
const ROUNDS: usize = 32;
/// The mount table of a node with thousands of pods is a few MiB.
const TABLE_MAX: u64 = 256 << 20;

const ONTO: MoveMountFlags =
    MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH.union(MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH);

/// Mounts a new tmpfs on a directory.
pub(crate) fn tmpfs(on: &Dir, size: Option<u64>, mode: u32) -> io::Result<()> {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    if let Some(bytes) = size {
        fsconfig_set_string(fs.as_fd(), "size", bytes.to_string())?;
    }
    fsconfig_set_string(fs.as_fd(), "mode", format!("{mode:o}"))?;
    fsconfig_create(fs.as_fd())?;
    let mount = fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    Ok(move_mount(mount.as_fd(), "", on.as_fd(), "", ONTO)?)
}

/// Binds a held file or directory to `name`, which must be of the same kind.
pub(crate) fn bind(from: &Held, dir: &Dir, name: &Path) -> io::Result<()> {
    let clone = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(from.fd.as_fd(), "", clone)?;
    let on = resolve(dir.as_fd(), name, OFlags::PATH | OFlags::NOFOLLOW, super::INSIDE)?;
    Ok(move_mount(tree.as_fd(), "", on.as_fd(), "", ONTO)?)
}

/// Unmounts everything that is mounted on `name`.
pub(crate) fn unmount(dir: &Dir, name: &Path) -> io::Result<()> {
    for _ in 0..ROUNDS {
        match dir.is_mount(name) {
            Ok(true) => detach(dir, name)?,
            Ok(false) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("mounts stay"))
}

fn detach(dir: &Dir, path: &Path) -> io::Result<()> {
    let fd = dir.walk(path, OFlags::PATH | OFlags::NOFOLLOW, BENEATH)?;
    Ok(rustix::mount::unmount(descriptor_path(&fd), UnmountFlags::DETACH)?)
}

/// Unmounts all that is mounted at or below `root/path`, then removes it. Nothing is removed unless
/// the mount table says that nothing is mounted there any more.
pub(crate) fn unmount_and_remove(root: &Path, path: &Path) -> io::Result<()> {
    // The mount table has real paths.
    let root = match root.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let dir = Dir::root(&root)?;
    unmount_all(&root, &dir, path)?;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    match dir.open(parent) {
        Ok(parent) => parent.remove(name),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn unmount_all(root: &Path, dir: &Dir, path: &Path) -> io::Result<()> {
    let mut last = usize::MAX;
    for _ in 0..ROUNDS {
        let mut below = below(&root.join(path))?;
        if below.is_empty() {
            return Ok(());
        }
        if below.len() >= last {
            let text = format!("{} is still mounted", below[0].display());
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
        }
        last = below.len();
        below.sort_by_key(|p| std::cmp::Reverse(p.components().count()));
        for point in &below {
            let Ok(relative) = point.strip_prefix(root) else { continue };
            if let Err(error) = detach(dir, relative) {
                tracing::debug!(%error, point = %point.display(), "not unmounted yet");
            }
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "mounts stay"))
}

/// Mount points at or below a directory.
fn below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    use std::io::Read;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let table = rustix::fs::openat(CWD, "/proc/self/mountinfo", flags, Mode::empty())?;
    let mut text = Vec::new();
    std::fs::File::from(table).take(TABLE_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > TABLE_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the mount table is too long"));
    }
    let mut points = parse(&text)?;
    points.retain(|p| p.starts_with(dir));
    Ok(points)
}

/// The fifth field of each line. Names are bytes, not text.
fn parse(table: &[u8]) -> io::Result<Vec<PathBuf>> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "the mount table cannot be read");
    let lines = table.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let point = line.split(|b| *b == b' ').nth(4).ok_or_else(bad)?;
            Ok(PathBuf::from(OsString::from_vec(unescape(point))))
        })
        .collect()
}

/// Mount tables write spaces and such as `\040`.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|d| std::str::from_utf8(d).ok());
        match digits.and_then(|d| u8::from_str_radix(d, 8).ok()).filter(|_| *first == b'\\') {
            Some(byte) => {
                out.push(byte);
                rest = &after[3..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_byte_by_byte_and_a_broken_one_is_an_error() {
        let table = b"1 2 0:1 / /a\\040b rw - t t rw\n3 2 0:1 / /c\xff rw - t t rw\n";
        let points = parse(table).unwrap();
        assert_eq!(points[0], Path::new("/a b"));
        assert_eq!(points[1].as_os_str().as_encoded_bytes(), b"/c\xff");
        assert!(parse(b"1 2 3\n").is_err());
    }
}
