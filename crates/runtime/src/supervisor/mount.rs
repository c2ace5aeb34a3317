//! The new mount API, as the build of a root needs it: every mount is made detached, and moved onto a
//! target that was opened before.

use std::ffi::{CStr, CString};
use std::os::fd::RawFd;
use std::ptr;

use super::sys::{Sys, check, close};

const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_SET_FD: libc::c_uint = 5;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const OPEN_TREE_CLONE: libc::c_uint = 1;
const OPEN_TREE_CLOEXEC: libc::c_uint = libc::O_CLOEXEC as libc::c_uint;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
pub(super) const MOUNT_ATTR_RDONLY: u64 = 1;
pub(super) const MOUNT_ATTR_NOSUID: u64 = 2;
pub(super) const MOUNT_ATTR_NODEV: u64 = 4;
pub(super) const MOUNT_ATTR_NOEXEC: u64 = 8;
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
pub(super) const RESOLVE_NO_MAGICLINKS: u64 = 2;
pub(super) const RESOLVE_NO_SYMLINKS: u64 = 4;
pub(super) const RESOLVE_IN_ROOT: u64 = 16;

/// Times that a resolution is tried again: the kernel gives up (EAGAIN) when anything on the machine was
/// renamed or mounted while it went through a `..`.
const RETRIES: usize = 128;

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

#[repr(C)]
#[derive(Default)]
pub(super) struct MountAttr {
    pub(super) set: u64,
    pub(super) clear: u64,
    pub(super) propagation: u64,
    pub(super) userns: u64,
}

/// `AT_EMPTY_PATH`, with the mounts below or without.
fn empty_path(recursive: bool) -> libc::c_uint {
    let deep = if recursive { libc::AT_RECURSIVE as libc::c_uint } else { 0 };
    libc::AT_EMPTY_PATH as libc::c_uint | deep
}

pub(super) fn open_how(dir: RawFd, path: &CStr, flags: libc::c_int, resolve: u64) -> Sys<RawFd> {
    let mode = if flags & libc::O_CREAT != 0 { 0o600 } else { 0 };
    let how = OpenHow { flags: flags as u64, mode, resolve };
    let size = size_of::<OpenHow>();
    for _ in 0..RETRIES {
        // SAFETY: C string, and a structure of the size that is said.
        match check(unsafe { libc::syscall(libc::SYS_openat2, dir, path.as_ptr(), &how, size) }) {
            Err(libc::EAGAIN) => {}
            other => return other.map(|fd| fd as RawFd),
        }
    }
    Err(libc::EAGAIN)
}

pub(super) fn open_dir(path: &CStr) -> Sys<RawFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    open_how(libc::AT_FDCWD, path, flags, 0)
}

/// Resolves a path with `root` as its root, whatever links there are.
pub(super) fn open_in(root: RawFd, path: &CStr) -> Sys<RawFd> {
    let resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
    open_how(root, path, libc::O_PATH | libc::O_CLOEXEC, resolve)
}

/// A file system by its name: a context that takes options.
pub(super) fn filesystem_context(kind: &CStr) -> Sys<RawFd> {
    // SAFETY: C string and plain numbers.
    check(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })
        .map(|fd| fd as RawFd)
}

pub(super) fn filesystem(
    kind: &CStr,
    options: &[(CString, Option<CString>)],
    attributes: u64,
) -> Sys<RawFd> {
    let fs = filesystem_context(kind)?;
    for (key, value) in options {
        configure(fs, key, value.as_deref())?;
    }
    create(fs, attributes)
}

pub(super) fn configure(fs: RawFd, key: &CStr, value: Option<&CStr>) -> Sys<()> {
    let (command, value) = match value {
        Some(value) => (FSCONFIG_SET_STRING, value.as_ptr()),
        None => (FSCONFIG_SET_FLAG, ptr::null()),
    };
    // SAFETY: C strings (or null for a flag) and plain numbers.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, fs, command, key.as_ptr(), value, 0) })
        .map(drop)
}

pub(super) fn configure_fd(fs: RawFd, key: &CStr, value: RawFd) -> Sys<()> {
    let nothing = ptr::null::<libc::c_char>();
    // SAFETY: C string and plain numbers.
    check(unsafe {
        libc::syscall(libc::SYS_fsconfig, fs, FSCONFIG_SET_FD, key.as_ptr(), nothing, value)
    })
    .map(drop)
}

/// The context becomes a detached mount.
pub(super) fn create(fs: RawFd, attributes: u64) -> Sys<RawFd> {
    let nothing = ptr::null::<libc::c_char>();
    // SAFETY: plain numbers; this command takes neither key nor value.
    let fd = unsafe {
        check(libc::syscall(libc::SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, nothing, nothing, 0))
            .and_then(|_| {
                let attributes = attributes as libc::c_uint;
                check(libc::syscall(libc::SYS_fsmount, fs, FSMOUNT_CLOEXEC, attributes))
            })
    };
    close(fs);
    fd.map(|fd| fd as RawFd)
}

/// A detached copy of the tree at `path`, or of the directory `sub` inside it.
pub(super) fn clone_tree(path: &CStr, sub: Option<&CStr>) -> Sys<RawFd> {
    let deep = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | libc::AT_RECURSIVE as libc::c_uint;
    let Some(sub) = sub else {
        // SAFETY: C string and plain numbers.
        let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), deep) };
        return check(fd).map(|fd| fd as RawFd);
    };
    let base = open_dir(path)?;
    let inside = open_in(base, sub);
    close(base);
    let inside = inside?;
    let tree = clone_at(inside, true);
    close(inside);
    tree
}

/// A detached copy of what a descriptor is of.
pub(super) fn clone_at(fd: RawFd, recursive: bool) -> Sys<RawFd> {
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | empty_path(recursive);
    // SAFETY: C string and plain numbers.
    check(unsafe { libc::syscall(libc::SYS_open_tree, fd, c"".as_ptr(), flags) })
        .map(|fd| fd as RawFd)
}

/// Moves a detached mount onto a path, and opens its root there.
pub(super) fn attach_root(mount: RawFd, point: &CStr) -> Sys<RawFd> {
    // SAFETY: C strings and plain numbers.
    check(unsafe {
        let empty = c"".as_ptr();
        let flags = MOVE_MOUNT_F_EMPTY_PATH;
        libc::syscall(libc::SYS_move_mount, mount, empty, libc::AT_FDCWD, point.as_ptr(), flags)
    })?;
    close(mount);
    open_dir(point)
}

pub(super) fn move_onto(mount: RawFd, at: RawFd) -> Sys<()> {
    let empty = c"".as_ptr();
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: C strings and plain numbers.
    check(unsafe { libc::syscall(libc::SYS_move_mount, mount, empty, at, empty, flags) }).map(drop)
}

fn mount_setattr(fd: RawFd, path: &CStr, flags: libc::c_uint, attr: &MountAttr) -> Sys<()> {
    let size = size_of::<MountAttr>();
    // SAFETY: C string, and a structure of the size that is said.
    check(unsafe {
        libc::syscall(libc::SYS_mount_setattr, fd, path.as_ptr(), flags, attr as *const _, size)
    })
    .map(drop)
}

pub(super) fn set_attr(fd: RawFd, recursive: bool, attr: &MountAttr) -> Sys<()> {
    mount_setattr(fd, c"", empty_path(recursive), attr)
}

pub(super) fn read_only(fd: RawFd, recursive: bool) -> Sys<()> {
    set_attr(fd, recursive, &MountAttr { set: MOUNT_ATTR_RDONLY, ..MountAttr::default() })
}

/// What is mounted anywhere in this mount namespace no longer reaches the host's.
pub(super) fn receive_only() -> Sys<()> {
    let slave = MountAttr { propagation: libc::MS_SLAVE, ..MountAttr::default() };
    mount_setattr(libc::AT_FDCWD, c"/", libc::AT_RECURSIVE as libc::c_uint, &slave)
}

/// Owners of a detached mount's files are seen through the user namespace's mapping.
pub(super) fn map_owners(fd: RawFd, user_ns: RawFd) -> Sys<()> {
    let userns = u64::from(user_ns.unsigned_abs());
    set_attr(fd, true, &MountAttr { set: MOUNT_ATTR_IDMAP, userns, ..MountAttr::default() })
}

/// A null device whose inode nobody else has.
pub(super) fn private_null() -> Sys<RawFd> {
    let fs = filesystem(c"tmpfs", &[], MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)?;
    let flags = libc::O_RDWR | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: C strings and plain numbers.
    let opened = unsafe {
        let (mode, device) = (libc::S_IFCHR | 0o666, libc::makedev(1, 3));
        check(libc::mknodat(fs, c"null".as_ptr(), mode, device).into())
            .and_then(|_| check(libc::openat(fs, c"null".as_ptr(), flags).into()))
    };
    close(fs);
    opened.map(|fd| fd as RawFd)
}
