//! A launched process builds its root file system: sources first, while the host's tree is in view, then
//! one step after the other, each onto a target that was opened inside the new root, so that no
//! symbolic link of an image or a volume can lead a mount out of it, or onto the process file system.

use std::borrow::Cow;
use std::ffi::{CStr, CString};
use std::os::fd::RawFd;

use super::mount::{
    self, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, MountAttr,
    RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, attach_root, clone_at, filesystem,
    move_onto, open_dir, open_how, open_in,
};
use super::prepare::{Op, Prepared, Target};
use super::sys::{self, Fail, Sys, check, close};
use crate::wire::Plan;

/// The kernel's number for procfs.
const PROC: i64 = 0x9fa0;

/// Copies of the mounts that the steps want, and the layers put together: all detached.
pub(super) fn open_sources(plan: &Plan, prepared: &mut Prepared) -> Result<(), Fail> {
    let user_ns = prepared.user_ns;
    for source in &mut prepared.sources {
        source.fd = open_source(source, user_ns)
            .map_err(|(what, e)| Fail::new(format!("{what} {}", source.name), e))?;
    }
    for (op, name) in prepared.ops.iter_mut().zip(&prepared.names) {
        let Op::Overlay { lowers, upper, mapped, fd, target, .. } = op else { continue };
        let user_ns = if *mapped { user_ns } else { -1 };
        *fd = match layered(lowers, upper.as_ref(), user_ns) {
            // Kernels before 6.8 do not know `lowerdir+`: the old call is made in the step itself.
            Err(libc::EINVAL) if target.is_none() && plan.user_ns.is_empty() => -1,
            other => other.map_err(|e| Fail::new(name.clone(), e))?,
        };
    }
    Ok(())
}

fn open_source(
    source: &super::prepare::Source,
    user_ns: RawFd,
) -> Result<RawFd, (&'static str, i32)> {
    let fd = mount::clone_tree(&source.path, source.sub_path.as_deref())
        .map_err(|e| ("open the source to", e))?;
    if source.mapped {
        mount::map_owners(fd, user_ns).map_err(|e| ("map the owners of the source to", e))?;
    }
    let propagation = MountAttr { propagation: source.propagation, ..MountAttr::default() };
    mount::set_attr(fd, true, &propagation).map_err(|e| ("set the propagation of", e))?;
    if source.read_only {
        mount::read_only(fd, source.recursive).map_err(|e| ("make read-only", e))?;
    }
    if source.attributes != 0 {
        let attributes = MountAttr { set: source.attributes, ..MountAttr::default() };
        mount::set_attr(fd, false, &attributes).map_err(|e| ("set the attributes of", e))?;
    }
    if source.proc && sys::filesystem_of(fd) != Ok(PROC) {
        return Err(("\"/proc\" cannot be mounted because it is not of type proc:", libc::EINVAL));
    }
    Ok(fd)
}

/// Builds the root as the steps say and makes it this process's `/`.
pub(super) fn root(plan: &Plan, prepared: &mut Prepared) -> Result<(), Fail> {
    let pivoting = |e| Fail::new("change the root", e);
    mount::receive_only().map_err(pivoting)?;
    let mut root = -1;
    for (index, op) in prepared.ops.iter().enumerate() {
        let done = step(op, plan, prepared, &mut root);
        done.map_err(|e| Fail::new(Cow::Owned(prepared.names[index].clone()), e))?;
    }
    pivot(root).map_err(pivoting)
}

fn step(op: &Op, plan: &Plan, prepared: &Prepared, root: &mut RawFd) -> Sys<()> {
    // A user of a user namespace may not walk to the usual place; any directory does.
    let point = if plan.user_ns.is_empty() { &*prepared.mount_point } else { c"/proc" };
    match op {
        Op::Overlay { fd: -1, joined, .. } => {
            *root = joined_overlay(joined, point)?;
            Ok(())
        }
        Op::Overlay { fd, target: Some(target), .. } => place(*fd, *root, target),
        Op::Overlay { fd, target: None, .. } => {
            *root = attach_root(*fd, point)?;
            Ok(())
        }
        Op::EmptyRoot => {
            let fd = filesystem(c"tmpfs", &[], 0)?;
            *root = attach_root(fd, point)?;
            Ok(())
        }
        Op::Mount { fs_type, options, attributes, target } => {
            let fd = match prepared.pid_ns {
                Some(pid_ns) if &**fs_type == c"proc" => proc_of(pid_ns, *attributes)?,
                _ => filesystem(fs_type, options, *attributes)?,
            };
            place(fd, *root, target)
        }
        Op::Bind { slot, target } => place(prepared.sources[*slot].fd, *root, target),
        Op::Node { .. } | Op::Symlink { .. } => entry(op, *root),
        Op::Mask(target) => mask(*root, target),
        Op::ReadOnly(target) => read_only(*root, target),
        Op::Directory(target) => ensure(*root, target).map(close),
        Op::ReadOnlyRoot => mount::read_only(*root, false),
    }
}

/// A name in a directory: a device or a link.
fn entry(op: &Op, root: RawFd) -> Sys<()> {
    match op {
        Op::Node { target, name, mode, device, uid, gid } => {
            let dir = ensure(root, target)?;
            // SAFETY: C string and plain numbers.
            let done = unsafe {
                let made = check(libc::mknodat(dir, name.as_ptr(), *mode, *device).into());
                made.and_then(|_| {
                    check(libc::fchmodat(dir, name.as_ptr(), *mode & 0o7777, 0).into())
                })
                .and_then(|_| check(libc::fchownat(dir, name.as_ptr(), *uid, *gid, 0).into()))
            };
            close(dir);
            done.map(drop)
        }
        Op::Symlink { target, name, to } => {
            let dir = ensure(root, target)?;
            // SAFETY: C strings.
            let done = check(unsafe { libc::symlinkat(to.as_ptr(), dir, name.as_ptr()) }.into());
            close(dir);
            done.map(drop)
        }
        _ => Ok(()),
    }
}

/// The process file system of another pid namespace, made from outside of it.
fn proc_of(pid_ns: RawFd, attributes: u64) -> Sys<RawFd> {
    let fs = mount::filesystem_context(c"proc")?;
    mount::configure_fd(fs, c"pidns", pid_ns)?;
    mount::create(fs, attributes)
}

fn joined_overlay(joined: &CStr, point: &CStr) -> Sys<RawFd> {
    check(
        // SAFETY: C strings.
        unsafe {
            let fs = c"overlay".as_ptr();
            libc::mount(fs, point.as_ptr(), fs, 0, joined.as_ptr().cast())
        }
        .into(),
    )?;
    open_dir(point)
}

/// With a user namespace the lower layers are seen through its mapping. The upper one is not: its files
/// belong to the mapped users on the disk too, because overlayfs itself could not write there otherwise.
fn layered(lowers: &[CString], upper: Option<&[CString; 2]>, user_ns: RawFd) -> Sys<RawFd> {
    let fs = mount::filesystem_context(c"overlay")?;
    for lower in lowers {
        let seen = seen_as(lower, user_ns)?;
        mount::configure(fs, c"lowerdir+", Some(&seen))?;
    }
    if let Some([upper, work]) = upper {
        mount::configure(fs, c"upperdir", Some(upper))?;
        mount::configure(fs, c"workdir", Some(work))?;
    }
    mount::create(fs, 0)
}

/// The name of a directory, or of a mapped copy of it; the copy lives until unused descriptors are closed.
fn seen_as(dir: &CStr, user_ns: RawFd) -> Sys<CString> {
    if user_ns < 0 {
        return Ok(dir.to_owned());
    }
    let fd = mount::clone_tree(dir, None)?;
    mount::map_owners(fd, user_ns)?;
    CString::new(format!("/proc/self/fd/{fd}")).map_err(|_| libc::EINVAL)
}

/// Opens a target inside the root; makes missing components on the way.
fn ensure(root: RawFd, target: &Target) -> Sys<RawFd> {
    let strict = if target.plain { RESOLVE_NO_SYMLINKS } else { 0 };
    let resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | strict;
    let open = |path: &CStr| open_how(root, path, libc::O_PATH | libc::O_CLOEXEC, resolve);
    let mut dir = open(c".")?;
    let last = target.prefixes.len().wrapping_sub(1);
    for (index, prefix) in target.prefixes.iter().enumerate() {
        let found = match open(prefix) {
            Err(libc::ENOENT) => {
                let name = last_component(prefix);
                make(dir, name, index != last || target.directory)?;
                open(prefix)
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

/// A link in a volume that another container changes may lead to `/proc`: a mount there would take its
/// masks away (CVE-2019-16884, CVE-2019-19921).
fn place(mount: RawFd, root: RawFd, target: &Target) -> Sys<()> {
    let at = ensure(root, target)?;
    let done = match sys::filesystem_of(at) {
        Ok(PROC) if !target.on_proc => Err(libc::EPERM),
        _ => move_onto(mount, at),
    };
    close(at);
    close(mount);
    done
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
    let directory = sys::fstat(at)?.st_mode & libc::S_IFMT == libc::S_IFDIR;
    let cover = if directory {
        let attributes =
            MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
        filesystem(c"tmpfs", &[], attributes)?
    } else {
        null_cover(root)?
    };
    let done = move_onto(cover, at);
    close(cover);
    close(at);
    done
}

/// The container's own null device, made sure to be one (CVE-2025-31133), which cannot be changed through
/// the mask.
fn null_cover(root: RawFd) -> Sys<RawFd> {
    let null = open_in(root, c"dev/null")?;
    let stat = sys::fstat(null)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFCHR || stat.st_rdev != libc::makedev(1, 3) {
        return Err(libc::ENODEV);
    }
    let cover = clone_at(null, false)?;
    close(null);
    mount::read_only(cover, false)?;
    Ok(cover)
}

fn read_only(root: RawFd, target: &Target) -> Sys<()> {
    let Some(at) = existing(root, target)? else { return Ok(()) };
    // A mount of its own is changed itself: under a cover the writable one would still be there.
    if mount::read_only(at, true).is_ok() {
        close(at);
        return Ok(());
    }
    let copy = clone_at(at, true)?;
    mount::read_only(copy, true)?;
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

/// Shows the terminal as `/dev/console`, without following a link there (CVE-2025-52565).
pub(super) fn console(slave: RawFd) -> Sys<()> {
    let path = c"/dev/console";
    let open = |flags| {
        let flags = flags | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        open_how(libc::AT_FDCWD, path, flags, RESOLVE_NO_SYMLINKS)
    };
    let at = match open(libc::O_PATH) {
        Err(libc::ENOENT) => {
            close(open(libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY)?);
            open(libc::O_PATH)?
        }
        other => other?,
    };
    let tree = clone_at(slave, false)?;
    let done = move_onto(tree, at);
    close(at);
    close(tree);
    done
}
