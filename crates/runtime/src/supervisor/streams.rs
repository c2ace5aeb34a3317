//! The three streams of a launched process, opened inside its container.
//!
//! A container may have changed its own `/dev` by the time of an exec, so nothing there is trusted by
//! its name: links are not followed, and a descriptor is used only when it is the device it should be.
//! The host's devices are never handed in: their inodes are the host's, and `fchmod` needs no path.

use std::os::fd::RawFd;

use super::build;
use super::mount::{self, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, open_how};
use super::sys::{self, Fail, Sys};
use crate::wire::Plan;

const RESOLVE_NO_XDEV: u64 = 1;
const RESOLVE_BENEATH: u64 = 8;
/// The kernel's number for devpts.
const DEVPTS: i64 = 0x1cd1;

pub(super) struct Stdio<'a> {
    pub(super) plan: &'a Plan,
    pub(super) status: RawFd,
    /// stdin, stdout, stderr.
    pub(super) given: [RawFd; 3],
}

/// Puts the streams onto descriptors 0 to 2; the given ones may be closed after.
pub(super) fn set_up(stdio: &Stdio<'_>) -> Result<(), Fail> {
    let done = if stdio.plan.tty { terminal(stdio) } else { plain(stdio) };
    done.map_err(|e| Fail::new("set up the streams", e))
}

fn plain(stdio: &Stdio<'_>) -> Sys<()> {
    for (target, given) in stdio.given.iter().enumerate() {
        let target = target as RawFd;
        if is_device(*given, 1, 3) {
            let null = container_null()?;
            sys::dup2(null, target)?;
            sys::close(null);
        } else {
            sys::dup2(*given, target)?;
            sys::own_pipe(target, stdio.plan.uid);
        }
    }
    Ok(())
}

fn is_device(fd: RawFd, major: u32, minor: u32) -> bool {
    let number = libc::makedev(major, minor);
    sys::fstat(fd).is_ok_and(|s| s.st_mode & libc::S_IFMT == libc::S_IFCHR && s.st_rdev == number)
}

/// The container's own null device; one of nobody else's when it has none.
fn container_null() -> Sys<RawFd> {
    let flags = libc::O_RDWR | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
    if let Ok(fd) = open_how(libc::AT_FDCWD, c"/dev/null", flags, resolve) {
        if is_device(fd, 1, 3) {
            // Opened without waiting, should it be something else; used as programs know it.
            // SAFETY: plain numbers.
            unsafe { libc::fcntl(fd, libc::F_SETFL, 0) };
            return Ok(fd);
        }
        sys::close(fd);
    }
    mount::private_null()
}

/// A terminal of the container's own devpts: its master goes to the supervisor.
fn terminal(stdio: &Stdio<'_>) -> Sys<()> {
    let master = open_ptmx()?;
    let unlock: libc::c_int = 0;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: plain numbers, and a local the kernel reads.
    let slave = unsafe {
        sys::check(libc::ioctl(master, libc::TIOCSPTLCK, &unlock).into())?;
        sys::check(libc::ioctl(master, libc::TIOCGPTPEER, flags).into())? as RawFd
    };
    // SAFETY: plain numbers; an owner that cannot be set is the mapped root's affair.
    unsafe { libc::fchown(slave, stdio.plan.uid, u32::MAX) };
    sys::send_terminal(stdio.status, master)?;
    sys::close(master);
    if stdio.plan.exec_in.is_empty() {
        build::console(slave)?;
    }
    for target in 0..3 {
        sys::dup2(slave, target)?;
    }
    sys::close(slave);
    Ok(())
}

/// `/dev/pts` must be a devpts, and the device must lie on it itself, not on something mounted over it.
fn open_ptmx() -> Sys<RawFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let dir = open_how(libc::AT_FDCWD, c"/dev/pts", flags, RESOLVE_NO_SYMLINKS)?;
    let flags = libc::O_RDWR | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS;
    let opened = match sys::filesystem_of(dir) {
        Ok(DEVPTS) => open_how(dir, c"ptmx", flags, resolve),
        Ok(_) => Err(libc::ENOTTY),
        Err(e) => Err(e),
    };
    sys::close(dir);
    match opened {
        Ok(fd) if is_device(fd, 5, 2) => Ok(fd),
        Ok(fd) => {
            sys::close(fd);
            Err(libc::ENOTTY)
        }
        Err(e) => Err(e),
    }
}
