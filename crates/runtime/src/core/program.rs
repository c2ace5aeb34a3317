//! The supervisor's program, in a form that nobody can write to.
//!
//! A process on its way into a container is still the supervisor's program, and the container may reach
//! that through `/proc/PID/exe` (CVE-2019-5736). So the supervisor is executed from a read-only mount of
//! the one file that is attached nowhere: when its descriptor closes at execve the mount belongs to no
//! mount namespace any more, so that not even CAP_SYS_ADMIN can make it writable. Where the kernel
//! refuses such a mount (a program that was itself executed so), it is a sealed copy in memory.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::error::{Error, IoContext, Result};

const RDONLY: u64 = 1;
const NOSUID: u64 = 2;
const NODEV: u64 = 4;

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// A descriptor to execute as `/proc/self/fd/N`; closed at execve.
pub(super) fn unwritable(program: &OsStr) -> Result<OwnedFd> {
    if !program.as_bytes().contains(&b'/') {
        let message = format!("supervisor_command: {} is no path", program.display());
        return Err(Error::Invalid(message));
    }
    match mounted(program) {
        Ok(fd) => Ok(fd),
        Err(e) => {
            tracing::info!("the supervisor runs from a copy in memory: {e}");
            copied(program).at("copy to memory", program)
        }
    }
}

fn mounted(program: &OsStr) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let fd = open_tree(rustix::fs::CWD, program, flags)?;
    set_attributes(fd.as_raw_fd(), RDONLY | NOSUID | NODEV, 0)?;
    Ok(fd)
}

fn set_attributes(fd: RawFd, set: u64, clear: u64) -> io::Result<()> {
    let attr = MountAttr { set, clear, propagation: 0, userns: 0 };
    // SAFETY: C string, and a structure of the size that is said.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd,
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &attr,
            size_of::<MountAttr>(),
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn copied(program: &OsStr) -> io::Result<OwnedFd> {
    let name = CString::new("supervisor")?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 do not know that a memory file may be asked to be executable; theirs are.
    let fd =
        memfd_create(&*name, flags | MemfdFlags::EXEC).or_else(|_| memfd_create(&*name, flags))?;
    let mut file = File::from(fd);
    io::copy(&mut File::open(program)?, &mut file)?;
    fcntl_add_seals(
        &file,
        SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    )?;
    // Executed through a descriptor for reading: one for writing would be "text file busy".
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    // SAFETY: C string and plain numbers; the descriptor returned is new and ours.
    unsafe {
        match libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;

    /// What a container may keep of a process that ran the program: its `exe`, open as a path.
    fn kept(program: OwnedFd) -> File {
        let mut child = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
            .arg0("busybox")
            .args(["sleep", "1000"])
            .spawn()
            .unwrap();
        drop(program);
        let path = format!("/proc/{}/exe", child.id());
        let exe = fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(&path).unwrap();
        assert!(fs::write(&path, "x").is_err());
        child.kill().unwrap();
        child.wait().unwrap();
        exe
    }

    fn write(exe: &File) -> Option<i32> {
        let path = format!("/proc/self/fd/{}", exe.as_raw_fd());
        fs::write(path, "x").unwrap_err().raw_os_error()
    }

    #[test]
    fn a_program_cannot_be_written_to_once_it_has_run() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let file = dir.path().join("program");
        fs::copy("/usr/bin/busybox", &file).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let exe = kept(mounted(file.as_os_str()).unwrap());
        assert_eq!(write(&exe), Some(libc::EROFS));
        // Even for a root of the host's: the mount is nobody's any more.
        let changed = set_attributes(exe.as_raw_fd(), 0, RDONLY);
        assert_eq!(changed.unwrap_err().raw_os_error(), Some(libc::EINVAL));
        assert_eq!(write(&exe), Some(libc::EROFS));
        assert_eq!(write(&kept(copied(file.as_os_str()).unwrap())), Some(libc::EPERM));
    }
}
