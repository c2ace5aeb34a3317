//! Raw system calls for the launched process: errors are plain errno numbers, nothing allocates.
//!
//! They are made through libc's thin wrappers only where those do nothing but the call. The
//! credential calls go past libc, whose versions would synchronise threads that do not exist here.

use std::borrow::Cow;
use std::ffi::CStr;
use std::mem;
use std::os::fd::RawFd;
use std::ptr;

/// A step of the set-up that failed, in the words that the caller of the start reads.
#[derive(Clone, Debug)]
pub(super) struct Fail {
    pub(super) text: Cow<'static, str>,
    pub(super) errno: i32,
}

impl Fail {
    pub(super) fn new(text: impl Into<Cow<'static, str>>, errno: i32) -> Self {
        Fail { text: text.into(), errno }
    }
}

/// Kinds of status packets.
pub(super) const FAILED: u8 = 1;
pub(super) const NOTE: u8 = 2;
pub(super) const TERMINAL: u8 = 3;
/// The process that runs the program is another one than the one that was launched.
pub(super) const HANDED_OVER: u8 = 4;
/// Bytes before a status packet's text: kind, three of padding, a number (errno or pid).
pub(super) const STATUS_HEAD: usize = 8;
/// Bytes of the largest status packet: a sentence with a path or two.
pub(super) const STATUS_BYTES: usize = 1024;
/// The user of an init that owns nothing; upstream's pause image uses the same.
pub(super) const NOBODY: u32 = 65535;

pub(super) type Sys<T> = Result<T, i32>;

pub(super) fn errno() -> i32 {
    // SAFETY: the calling thread's own errno.
    unsafe { *libc::__errno_location() }
}

pub(super) fn check(result: libc::c_long) -> Sys<libc::c_long> {
    if result < 0 { Err(errno()) } else { Ok(result) }
}

/// Sends a status packet; allocates nothing, because a filter may be in force.
pub(super) fn report(status: RawFd, kind: u8, number: i32, text: &str) {
    let mut packet = [0u8; STATUS_BYTES];
    packet[0] = kind;
    packet[4..STATUS_HEAD].copy_from_slice(&number.to_ne_bytes());
    let length = text.len().min(STATUS_BYTES - STATUS_HEAD);
    packet[STATUS_HEAD..STATUS_HEAD + length].copy_from_slice(&text.as_bytes()[..length]);
    // SAFETY: the buffer is local and as long as said; a lost report shows as a failed start anyway.
    unsafe { libc::send(status, packet.as_ptr().cast(), STATUS_HEAD + length, libc::MSG_NOSIGNAL) };
}

/// Closes every descriptor from 3 on that is not in `keep`.
pub(super) fn close_others(keep: &mut [RawFd]) {
    keep.sort_unstable();
    let mut next = 3u32;
    for fd in keep.iter().filter(|fd| **fd >= 3).map(|fd| fd.unsigned_abs()) {
        if fd > next {
            close_range(next, fd - 1);
        }
        next = next.max(fd + 1);
    }
    close_range(next, u32::MAX);
}

fn close_range(first: u32, last: u32) {
    // SAFETY: plain numbers; callers list every descriptor that is used after.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}

/// Neither this process nor what it forks can be looked into by others of its user: until execve.
/// Changing credentials resets it, so it is called again after each change.
pub(super) fn undumpable() -> Sys<()> {
    prctl(libc::PR_SET_DUMPABLE, 0)
}

/// A fork whose parent is this process's own parent. By `clone`, which filters that let programs fork
/// allow; the stack stays, as with fork.
pub(super) fn fork_sibling() -> Sys<i32> {
    let none = ptr::null::<libc::c_void>();
    let flags = (libc::CLONE_PARENT | libc::SIGCHLD) as libc::c_long;
    // SAFETY: without CLONE_VM the child has a copy of everything; this process has one thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) };
    check(pid).map(|pid| pid as i32)
}

pub(super) fn default_signals() {
    // SAFETY: an all-zero sigset is a valid empty set; dispositions are the child's own.
    unsafe {
        let none: libc::sigset_t = mem::zeroed();
        libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut());
        for signal in [libc::SIGPIPE, libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGCHLD] {
            libc::signal(signal, libc::SIG_DFL);
        }
        libc::umask(0o022);
    }
}

pub(super) fn setns(fd: RawFd, kinds: libc::c_int) -> Sys<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::syscall(libc::SYS_setns, fd, kinds) }).map(drop)
}

pub(super) fn unshare(kinds: libc::c_int) -> Sys<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::syscall(libc::SYS_unshare, kinds) }).map(drop)
}

pub(super) fn write(fd: RawFd, bytes: &[u8]) -> Sys<()> {
    // SAFETY: the slice is valid for its length.
    check(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) } as libc::c_long).map(drop)
}

pub(super) fn write_path(path: &CStr, bytes: &[u8]) -> Sys<()> {
    // SAFETY: a C string and plain numbers.
    let fd = check(unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) }.into())?;
    let written = write(fd as RawFd, bytes);
    close(fd as RawFd);
    written
}

pub(super) fn close(fd: RawFd) {
    // SAFETY: callers own `fd` and do not use it again.
    unsafe { libc::close(fd) };
}

pub(super) fn dup2(from: RawFd, to: RawFd) -> Sys<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::dup2(from, to) }.into()).map(drop)
}

pub(super) fn fstat(fd: RawFd) -> Sys<libc::stat> {
    // SAFETY: the kernel fills the structure before it is read.
    unsafe {
        let mut stat: libc::stat = mem::zeroed();
        check(libc::fstat(fd, &mut stat).into())?;
        Ok(stat)
    }
}

/// The kernel's number for the kind of file system that a descriptor lies on.
pub(super) fn filesystem_of(fd: RawFd) -> Sys<i64> {
    // SAFETY: the kernel fills the structure before it is read.
    unsafe {
        let mut stat: libc::statfs = mem::zeroed();
        check(libc::fstatfs(fd, &mut stat).into())?;
        Ok(stat.f_type as i64)
    }
}

/// Gives a pipe to the container's user, so that it can open `/dev/stdout`. Anything else is left alone:
/// it is shared with others.
pub(super) fn own_pipe(fd: RawFd, uid: u32) {
    if fstat(fd).is_ok_and(|s| s.st_mode & libc::S_IFMT == libc::S_IFIFO) {
        // SAFETY: plain numbers.
        unsafe { libc::fchown(fd, uid, u32::MAX) };
    }
}

pub(super) fn chdir(path: &CStr) -> Sys<()> {
    // SAFETY: a C string.
    check(unsafe { libc::chdir(path.as_ptr()) }.into()).map(drop)
}

pub(super) fn prctl(option: libc::c_int, value: u64) -> Sys<()> {
    // SAFETY: the options used take one number.
    check(unsafe { libc::prctl(option, value, 0u64, 0u64, 0u64) }.into()).map(drop)
}

pub(super) fn raise_ambient(bit: u32) -> Sys<()> {
    let raise = libc::PR_CAP_AMBIENT_RAISE as u64;
    // SAFETY: plain numbers.
    let done = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, raise, u64::from(bit), 0u64, 0u64) };
    check(done.into()).map(drop)
}

pub(super) fn set_ids(uid: u32, gid: u32, groups: &[u32]) -> Sys<()> {
    // SAFETY: the slice is valid for its length; plain numbers otherwise.
    unsafe {
        check(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()))?;
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
    }
    Ok(())
}

pub(super) fn seccomp(program: &libc::sock_fprog) -> Sys<()> {
    // SAFETY: `program` points to as many instructions as it says, owned by the caller.
    check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, program as *const _)
    })
    .map(drop)
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`: 64-bit sets in two halves.
const CAP_VERSION: u32 = 0x2008_0522;

/// The permitted set.
pub(super) fn capget() -> Sys<u64> {
    let header = CapHeader { version: CAP_VERSION, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: version 3 writes two elements.
    check(unsafe { libc::syscall(libc::SYS_capget, &header, data.as_mut_ptr()) })?;
    Ok(u64::from(data[0].permitted) | u64::from(data[1].permitted) << 32)
}

pub(super) fn capset(effective: u64, permitted: u64, inheritable: u64) -> Sys<()> {
    let header = CapHeader { version: CAP_VERSION, pid: 0 };
    let half = |shift: u32| CapData {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 reads two elements.
    check(unsafe { libc::syscall(libc::SYS_capset, &header, data.as_ptr()) }).map(drop)
}

/// Makes a terminal the session's own.
pub(super) fn control_terminal(slave: RawFd) -> Sys<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::ioctl(slave, libc::TIOCSCTTY, 0) }.into()).map(drop)
}

/// Bytes for one control message with one descriptor, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; 32]);

/// Sends the terminal's master to the supervisor.
pub(super) fn send_terminal(socket: RawFd, fd: RawFd) -> Sys<()> {
    let mut packet = [TERMINAL, 0, 0, 0, 0, 0, 0, 0];
    let mut control = Control([0; 32]);
    let mut part = libc::iovec { iov_base: packet.as_mut_ptr().cast(), iov_len: packet.len() };
    // SAFETY: every pointer is to a local that outlives the call; the control buffer is large enough
    // for one header and one number, which CMSG_SPACE confirms.
    unsafe {
        let mut message: libc::msghdr = mem::zeroed();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as usize;
        let header = libc::CMSG_FIRSTHDR(&message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as usize;
        ptr::write_unaligned(libc::CMSG_DATA(header).cast(), fd);
        check(libc::sendmsg(socket, &message, libc::MSG_NOSIGNAL) as libc::c_long).map(drop)
    }
}
