//! Mounts, and the table of them.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

/// Longest table that is read.
const TABLE_MAX: u64 = 64 << 20;

/// One line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// `major:minor`.
    pub(crate) device: String,
    /// What of the file system is mounted.
    pub(crate) root: PathBuf,
    pub(crate) point: PathBuf,
    pub(crate) read_only: bool,
    /// The file system itself takes no writes.
    pub(crate) file_system_read_only: bool,
}

/// All mounts of this process, in their order.
pub(crate) fn table() -> io::Result<Vec<Mount>> {
    let mut text = Vec::new();
    std::fs::File::open("/proc/self/mountinfo")?.take(TABLE_MAX).read_to_end(&mut text)?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// The mount that is seen at a path.
pub(crate) fn at(path: &Path) -> io::Result<Option<Mount>> {
    let path = match std::fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        path => path?,
    };
    Ok(table()?.into_iter().rfind(|mount| mount.point == path))
}

fn parse(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|byte| *byte == b' ');
    let device = String::from_utf8(words.by_ref().nth(2)?.to_vec()).ok()?;
    let root = unescaped(words.next()?);
    let point = unescaped(words.next()?);
    let has = |options: &[u8], word: &[u8]| options.split(|byte| *byte == b',').any(|o| o == word);
    let read_only = has(words.next()?, b"ro");
    let file_system_read_only = words.next_back().is_some_and(|options| has(options, b"ro"));
    Some(Mount { device, root, point, read_only, file_system_read_only })
}

/// Spaces, tabs, newlines and backslashes are three octal digits.
fn unescaped(text: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..3).and_then(|three| std::str::from_utf8(three).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                out.push(byte);
                rest = &tail[3..];
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(out).into()
}

/// Mount options as users write them: flags of the kernel, and the rest for the file system.
pub(crate) fn options(of: &[String]) -> (MountFlags, String) {
    let mut flags = MountFlags::empty();
    let mut rest = Vec::new();
    for option in of.iter().flat_map(|of| of.split(',')) {
        match option {
            "" | "rw" | "defaults" => {}
            "ro" => flags |= MountFlags::RDONLY,
            "nosuid" => flags |= MountFlags::NOSUID,
            "nodev" => flags |= MountFlags::NODEV,
            "noexec" => flags |= MountFlags::NOEXEC,
            "noatime" => flags |= MountFlags::NOATIME,
            "nodiratime" => flags |= MountFlags::NODIRATIME,
            "relatime" => flags |= MountFlags::RELATIME,
            "strictatime" => flags |= MountFlags::STRICTATIME,
            "sync" => flags |= MountFlags::SYNCHRONOUS,
            other => rest.push(other),
        }
    }
    (flags, rest.join(","))
}

/// Mounts a device's file system.
pub(crate) fn mount(device: &Path, at: &Path, kind: &str, of: &[String]) -> io::Result<()> {
    let (flags, data) = options(of);
    let data = std::ffi::CString::new(data)?;
    Ok(rustix::mount::mount(device, at, kind, flags, data.as_c_str())?)
}

/// Shows what is at `from` at `to`, too.
pub(crate) fn bind(from: &Path, to: &Path, of: &[String], read_only: bool) -> io::Result<()> {
    rustix::mount::mount_bind(from, to)?;
    let (mut flags, _) = options(of);
    if read_only {
        flags |= MountFlags::RDONLY;
    }
    if !flags.is_empty() {
        let changed = rustix::mount::mount_remount(to, MountFlags::BIND | flags, c"");
        if let Err(error) = changed {
            unmount(to)?;
            return Err(error.into());
        }
    }
    Ok(rustix::mount::mount_change(to, MountPropagationFlags::PRIVATE)?)
}

/// Unmounts all that is mounted at a path.
pub(crate) fn unmount(path: &Path) -> io::Result<()> {
    while at(path)?.is_some() {
        rustix::mount::unmount(path, UnmountFlags::NOFOLLOW)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_table() {
        let line =
            br"36 35 7:3 / /mnt/a\040b ro,noatime shared:1 master:2 - ext4 /dev/loop3 rw,errors=ro";
        let mount = parse(line).unwrap();
        assert_eq!(mount.device, "7:3");
        assert_eq!(mount.point, Path::new("/mnt/a b"));
        assert!(mount.read_only && !mount.file_system_read_only);
        assert_eq!(parse(b"36 35"), None);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn options_are_flags_or_the_file_systems() {
        let (flags, rest) = options(&["ro,noatime".into(), "discard".into(), "rw".into()]);
        assert_eq!(flags, MountFlags::RDONLY | MountFlags::NOATIME);
        assert_eq!(rest, "discard");
    }
}
