//! Raw system calls for the child: errors are plain errno numbers, nothing allocates.
//!
//! They are made through libc's thin wrappers only where those do nothing but the call. The
//! credential calls go past libc, whose versions would synchronise threads that do not exist here.

use std::ffi::CStr;
use std::mem;
use std::os::fd::RawFd;
use std::ptr;

/// Which part of the set-up failed: turned into words by the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    Namespaces = 1,
    Sources,
    Build,
    Pivot,
    Streams,
    Cgroup,
    Credentials,
    Cwd,
    Seccomp,
    Execute,
    OomScore,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Fail {
    pub(super) stage: Stage,
    pub(super) index: u16,
    pub(super) errno: i32,
}

impl Fail {
    pub(super) fn new(stage: Stage, errno: i32) -> Self {
        Fail { stage, index: 0, errno }
    }

    pub(super) fn at(stage: Stage, index: usize, errno: i32) -> Self {
        Fail { stage, index: index as u16, errno }
    }
}

/// Kinds of status packets.
pub(super) const FAILED: u8 = 1;
pub(super) const NOTE: u8 = 2;
pub(super) const TERMINAL: u8 = 3;
/// Bytes of a status packet: kind, stage, index, errno.
pub(super) const STATUS_BYTES: usize = 8;
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

pub(super) fn report(status: RawFd, kind: u8, stage: u8, index: u16, errno: i32) {
    let [i0, i1] = index.to_ne_bytes();
    let [e0, e1, e2, e3] = errno.to_ne_bytes();
    let packet: [u8; STATUS_BYTES] = [kind, stage, i0, i1, e0, e1, e2, e3];
    // SAFETY: the buffer is local and as long as said; a lost report shows as a failed start anyway.
    unsafe { libc::send(status, packet.as_ptr().cast(), packet.len(), libc::MSG_NOSIGNAL) };
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

/// Gives a pipe to the container's user, so that it can open `/dev/stdout`; a shared file refuses, fine.
pub(super) fn own(fd: RawFd, uid: u32) {
    // SAFETY: `stat` is written by the kernel before it is read; plain numbers otherwise.
    unsafe {
        let mut stat: libc::stat = mem::zeroed();
        if libc::fstat(fd, &mut stat) == 0 && stat.st_mode & libc::S_IFMT == libc::S_IFIFO {
            libc::fchown(fd, uid, u32::MAX);
        }
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

/// A terminal of the container's own devpts: its master goes to the supervisor, its slave is returned.
pub(super) fn open_terminal(status: RawFd, uid: u32) -> Sys<RawFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: C string, plain numbers, and a local the kernel reads.
    unsafe {
        let master = check(libc::open(c"/dev/pts/ptmx".as_ptr(), flags).into())? as RawFd;
        let unlock: libc::c_int = 0;
        check(libc::ioctl(master, libc::TIOCSPTLCK, &unlock).into())?;
        let slave = check(libc::ioctl(master, libc::TIOCGPTPEER, flags).into())? as RawFd;
        libc::fchown(slave, uid, u32::MAX);
        send_fd(status, master)?;
        close(master);
        Ok(slave)
    }
}

pub(super) fn control_terminal(slave: RawFd) -> Sys<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::ioctl(slave, libc::TIOCSCTTY, 0) }.into()).map(drop)
}

/// Bytes for one control message with one descriptor, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; 32]);

fn send_fd(socket: RawFd, fd: RawFd) -> Sys<()> {
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
        message.msg_controllen = libc::CMSG_SPACE(mem::size_of::<RawFd>() as u32) as usize;
        let header = libc::CMSG_FIRSTHDR(&message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(mem::size_of::<RawFd>() as u32) as usize;
        ptr::write_unaligned(libc::CMSG_DATA(header).cast(), fd);
        check(libc::sendmsg(socket, &message, libc::MSG_NOSIGNAL) as libc::c_long).map(drop)
    }
}
