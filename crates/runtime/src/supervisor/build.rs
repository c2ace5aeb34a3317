//! The child builds its root file system with the new mount API: every mount is made detached, and
//! moved onto a target that was opened inside the new root, so that no symbolic link of an image can
//! lead a mount out of it.

use std::ffi::{CStr, CString};
use std::mem;
use std::os::fd::RawFd;
use std::ptr;

use super::prepare::{Op, Prepared, Target};
use super::sys::{Fail, Stage, Sys, check, close, errno};

const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const OPEN_TREE_CLONE: libc::c_uint = 1;
const OPEN_TREE_CLOEXEC: libc::c_uint = libc::O_CLOEXEC as libc::c_uint;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
const MOUNT_ATTR_RDONLY: u64 = 1;
const MOUNT_ATTR_NOSUID: u64 = 2;
const MOUNT_ATTR_NODEV: u64 = 4;
const MOUNT_ATTR_NOEXEC: u64 = 8;
const RESOLVE_NO_MAGICLINKS: u64 = 2;
const RESOLVE_IN_ROOT: u64 = 16;

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// Builds the root as the steps say and makes it this process's `/`.
pub(super) fn root(prepared: &mut Prepared) -> Result<(), Fail> {
    for (index, source) in prepared.sources.iter_mut().enumerate() {
        let sub = source.sub_path.as_deref();
        source.fd = clone_tree(&source.path, sub).map_err(|e| Fail::at(Stage::Sources, index, e))?;
    }
    let slave = MountAttr { set: 0, clear: 0, propagation: libc::MS_SLAVE, userns: 0 };
    set_attr(libc::AT_FDCWD, c"/", libc::AT_RECURSIVE as libc::c_uint, &slave)
        .map_err(|e| Fail::new(Stage::Pivot, e))?;
    let mut root = -1;
    for (index, op) in prepared.ops.iter().enumerate() {
        let done = step(op, prepared, &mut root);
        done.map_err(|e| Fail::at(Stage::Build, index, e))?;
    }
    pivot(root).map_err(|e| Fail::new(Stage::Pivot, e))
}

fn step(op: &Op, prepared: &Prepared, root: &mut RawFd) -> Sys<()> {
    match op {
        Op::Overlay { lowers, upper, joined, target } => {
            let point = &prepared.mount_point;
            overlay(lowers, upper.as_ref(), joined, target.as_ref(), point, root)
        }
        Op::EmptyRoot => {
            let fd = filesystem(c"tmpfs", &[], 0)?;
            *root = attach_root(fd, &prepared.mount_point)?;
            Ok(())
        }
        Op::Mount { fs_type, options, attributes, target } => {
            let fd = filesystem(fs_type, options, *attributes)?;
            place(fd, *root, target)
        }
        Op::Bind { slot, read_only, recursive, propagation, target } => {
            let fd = prepared.sources[*slot].fd;
            let mut attr = MountAttr { set: 0, clear: 0, propagation: *propagation, userns: 0 };
            set_attr(fd, c"", empty_path(true), &attr)?;
            if *read_only {
                attr = MountAttr { set: MOUNT_ATTR_RDONLY, clear: 0, propagation: 0, userns: 0 };
                set_attr(fd, c"", empty_path(*recursive), &attr)?;
            }
            place(fd, *root, target)
        }
        Op::Node { target, name, mode, device, uid, gid } => {
            let dir = ensure(*root, target)?;
            // SAFETY: C string and plain numbers.
            let done = unsafe {
                let made = check(libc::mknodat(dir, name.as_ptr(), *mode, *device).into());
                made.and_then(|_| check(libc::fchmodat(dir, name.as_ptr(), *mode & 0o7777, 0).into()))
                    .and_then(|_| check(libc::fchownat(dir, name.as_ptr(), *uid, *gid, 0).into()))
            };
            close(dir);
            done.map(drop)
        }
        Op::Symlink { target, name, to } => {
            let dir = ensure(*root, target)?;
            // SAFETY: C strings.
            let done = check(unsafe { libc::symlinkat(to.as_ptr(), dir, name.as_ptr()) }.into());
            close(dir);
            done.map(drop)
        }
        Op::Mask(target) => mask(*root, target),
        Op::ReadOnly(target) => read_only(*root, target),
        Op::Directory(target) => ensure(*root, target).map(close),
        Op::ReadOnlyRoot => {
            let attr = MountAttr { set: MOUNT_ATTR_RDONLY, clear: 0, propagation: 0, userns: 0 };
            set_attr(*root, c"", empty_path(false), &attr)
        }
    }
}

fn empty_path(recursive: bool) -> libc::c_uint {
    let deep = if recursive { libc::AT_RECURSIVE as libc::c_uint } else { 0 };
    libc::AT_EMPTY_PATH as libc::c_uint | deep
}

fn overlay(
    lowers: &[CString],
    upper: Option<&(CString, CString)>,
    joined: &CStr,
    target: Option<&Target>,
    point: &CStr,
    root: &mut RawFd,
) -> Sys<()> {
    let made = layered(lowers, upper);
    match (made, target) {
        (Ok(fd), Some(target)) => place(fd, *root, target),
        (Ok(fd), None) => {
            *root = attach_root(fd, point)?;
            Ok(())
        }
        // Kernels before 6.8 do not know `lowerdir+`: the old call, with its limit of one page of options.
        (Err(libc::EINVAL), None) => {
            // SAFETY: C strings.
            check(unsafe {
                let fs = c"overlay".as_ptr();
                libc::mount(fs, point.as_ptr(), fs, 0, joined.as_ptr().cast())
            } as libc::c_long)?;
            *root = open_dir(point)?;
            Ok(())
        }
        (Err(e), _) => Err(e),
    }
}

fn layered(lowers: &[CString], upper: Option<&(CString, CString)>) -> Sys<RawFd> {
    // SAFETY: C string and plain numbers.
    let fs = check(unsafe { libc::syscall(libc::SYS_fsopen, c"overlay".as_ptr(), FSOPEN_CLOEXEC) })?;
    let fs = fs as RawFd;
    for lower in lowers {
        configure(fs, c"lowerdir+", Some(lower))?;
    }
    if let Some((upper, work)) = upper {
        configure(fs, c"upperdir", Some(upper))?;
        configure(fs, c"workdir", Some(work))?;
    }
    create(fs, 0)
}

fn filesystem(kind: &CStr, options: &[(CString, Option<CString>)], attributes: u64) -> Sys<RawFd> {
    // SAFETY: C string and plain numbers.
    let fs = check(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })?;
    for (key, value) in options {
        configure(fs as RawFd, key, value.as_deref())?;
    }
    create(fs as RawFd, attributes)
}

fn configure(fs: RawFd, key: &CStr, value: Option<&CStr>) -> Sys<()> {
    let (command, value) = match value {
        Some(value) => (FSCONFIG_SET_STRING, value.as_ptr()),
        None => (FSCONFIG_SET_FLAG, ptr::null()),
    };
    // SAFETY: C strings (or null for a flag) and plain numbers.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, fs, command, key.as_ptr(), value, 0) }).map(drop)
}

fn create(fs: RawFd, attributes: u64) -> Sys<RawFd> {
    let nothing = ptr::null::<libc::c_char>();
    // SAFETY: plain numbers; this command takes neither key nor value.
    let fd = unsafe {
        check(libc::syscall(libc::SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, nothing, nothing, 0))?;
        check(libc::syscall(libc::SYS_fsmount, fs, FSMOUNT_CLOEXEC, attributes as libc::c_uint))?
    };
    close(fs);
    Ok(fd as RawFd)
}

fn attach_root(mount: RawFd, point: &CStr) -> Sys<RawFd> {
    // SAFETY: C strings and plain numbers.
    check(unsafe {
        let empty = c"".as_ptr();
        let flags = MOVE_MOUNT_F_EMPTY_PATH;
        libc::syscall(libc::SYS_move_mount, mount, empty, libc::AT_FDCWD, point.as_ptr(), flags)
    })?;
    close(mount);
    open_dir(point)
}

fn open_dir(path: &CStr) -> Sys<RawFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: C string and plain numbers.
    check(unsafe { libc::open(path.as_ptr(), flags) }.into()).map(|fd| fd as RawFd)
}

/// A detached copy of the tree at `path`, or of the directory `sub` inside it.
fn clone_tree(path: &CStr, sub: Option<&CStr>) -> Sys<RawFd> {
    let deep = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | libc::AT_RECURSIVE as libc::c_uint;
    let Some(sub) = sub else {
        // SAFETY: C string and plain numbers.
        let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), deep) };
        return check(fd).map(|fd| fd as RawFd);
    };
    let base = open_dir(path)?;
    let inside = open_in(base, sub)?;
    let flags = deep | libc::AT_EMPTY_PATH as libc::c_uint;
    // SAFETY: C string and plain numbers.
    check(unsafe { libc::syscall(libc::SYS_open_tree, inside, c"".as_ptr(), flags) })
        .map(|fd| fd as RawFd)
}

fn open_in(root: RawFd, path: &CStr) -> Sys<RawFd> {
    let how = OpenHow {
        flags: (libc::O_PATH | libc::O_CLOEXEC) as u64,
        mode: 0,
        resolve: RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    };
    let size = mem::size_of::<OpenHow>();
    // SAFETY: C string, and a structure of the size that is said.
    check(unsafe { libc::syscall(libc::SYS_openat2, root, path.as_ptr(), &how, size) })
        .map(|fd| fd as RawFd)
}

/// Opens a target inside the root; makes what is missing on the way.
fn ensure(root: RawFd, target: &Target) -> Sys<RawFd> {
    let mut dir = open_in(root, c".")?;
    let last = target.prefixes.len().wrapping_sub(1);
    for (index, prefix) in target.prefixes.iter().enumerate() {
        let found = match open_in(root, prefix) {
            Err(libc::ENOENT) => {
                let name = last_component(prefix);
                make(dir, name, index != last || target.directory)?;
                open_in(root, prefix)
            }
            other => other,
        }?;
        close(dir);
        dir = found;
    }
    Ok(dir)
}

fn last_component(path: &CStr) -> &CStr {
    let bytes = path.to_bytes_with_nul();
    let from = bytes.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
    // SAFETY: the tail of a C string, with its terminator.
    unsafe { CStr::from_bytes_with_nul_unchecked(&bytes[from..]) }
}

fn make(dir: RawFd, name: &CStr, directory: bool) -> Sys<()> {
    // SAFETY: C string and plain numbers.
    let made = unsafe {
        if directory {
            libc::mkdirat(dir, name.as_ptr(), 0o755)
        } else {
            libc::mknodat(dir, name.as_ptr(), libc::S_IFREG | 0o644, 0)
        }
    };
    check(made.into()).map(drop)
}

fn place(mount: RawFd, root: RawFd, target: &Target) -> Sys<()> {
    let at = ensure(root, target)?;
    let done = move_onto(mount, at);
    close(at);
    close(mount);
    done
}

fn move_onto(mount: RawFd, at: RawFd) -> Sys<()> {
    let empty = c"".as_ptr();
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: C strings and plain numbers.
    check(unsafe { libc::syscall(libc::SYS_move_mount, mount, empty, at, empty, flags) }).map(drop)
}

fn set_attr(fd: RawFd, path: &CStr, flags: libc::c_uint, attr: &MountAttr) -> Sys<()> {
    let size = mem::size_of::<MountAttr>();
    // SAFETY: C string, and a structure of the size that is said.
    check(unsafe {
        libc::syscall(libc::SYS_mount_setattr, fd, path.as_ptr(), flags, attr as *const _, size)
    })
    .map(drop)
}

/// Opens a path that need not be there.
fn existing(root: RawFd, target: &Target) -> Sys<Option<RawFd>> {
    let Some(path) = target.prefixes.last() else { return Ok(None) };
    match open_in(root, path) {
        Ok(fd) => Ok(Some(fd)),
        Err(libc::ENOENT | libc::ENOTDIR) => Ok(None),
        Err(e) => Err(e),
    }
}

fn mask(root: RawFd, target: &Target) -> Sys<()> {
    let Some(at) = existing(root, target)? else { return Ok(()) };
    // SAFETY: the kernel fills the structure before it is read.
    let directory = unsafe {
        let mut stat: libc::stat = mem::zeroed();
        check(libc::fstat(at, &mut stat).into())?;
        stat.st_mode & libc::S_IFMT == libc::S_IFDIR
    };
    let cover = if directory {
        let attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
        filesystem(c"tmpfs", &[], attributes)?
    } else {
        clone_tree(c"/dev/null", None)?
    };
    let done = move_onto(cover, at);
    close(cover);
    close(at);
    done
}

fn read_only(root: RawFd, target: &Target) -> Sys<()> {
    let Some(at) = existing(root, target)? else { return Ok(()) };
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
    let flags = flags | empty_path(true);
    // SAFETY: C string and plain numbers.
    let copy = check(unsafe { libc::syscall(libc::SYS_open_tree, at, c"".as_ptr(), flags) })? as RawFd;
    let attr = MountAttr { set: MOUNT_ATTR_RDONLY, clear: 0, propagation: 0, userns: 0 };
    set_attr(copy, c"", empty_path(true), &attr)?;
    let done = move_onto(copy, at);
    close(copy);
    close(at);
    done
}

fn pivot(root: RawFd) -> Sys<()> {
    // SAFETY: C strings and plain numbers. The old root ends up stacked on the new one and is
    // detached from there, which needs no directory for it.
    unsafe {
        check(libc::fchdir(root).into())?;
        check(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()))?;
        check(libc::umount2(c".".as_ptr(), libc::MNT_DETACH).into())?;
        check(libc::chdir(c"/".as_ptr()).into())?;
    }
    close(root);
    Ok(())
}

/// Shows the terminal as `/dev/console`.
pub(super) fn console(slave: RawFd) -> Sys<()> {
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | empty_path(false);
    // SAFETY: C strings and plain numbers.
    unsafe {
        let file = libc::open(c"/dev/console".as_ptr(), libc::O_CREAT | libc::O_CLOEXEC, 0o600);
        if file < 0 {
            return Err(errno());
        }
        close(file);
        let tree = check(libc::syscall(libc::SYS_open_tree, slave, c"".as_ptr(), flags))? as RawFd;
        let at = open_path(c"/dev/console")?;
        let done = move_onto(tree, at);
        close(at);
        close(tree);
        done
    }
}

fn open_path(path: &CStr) -> Sys<RawFd> {
    // SAFETY: C string and plain numbers.
    check(unsafe { libc::open(path.as_ptr(), libc::O_PATH | libc::O_CLOEXEC) }.into())
        .map(|fd| fd as RawFd)
}
