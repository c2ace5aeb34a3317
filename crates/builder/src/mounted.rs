//! Overlay mounts that end with the thread that needs them.
//!
//! The thread has a mount namespace of its own: when it ends, however that is, the kernel takes the mounts
//! away.

use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount,
};

use crate::error::{Error, IoContext, Result};

/// Runs `work` on a thread with a mount namespace of its own.
pub(crate) fn in_namespace<R: Send>(work: impl FnOnce() -> Result<R> + Send) -> Result<R> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter().at("make a mount namespace for", "this build")?;
            work()
        });
        thread.join().unwrap_or_else(|_| Err(Error::refused("the copying thread panicked")))
    })
}

fn enter() -> io::Result<()> {
    // SAFETY: takes a plain number. Only this thread, which nobody else uses, gets the new namespace.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    Ok(mount_change("/", private)?)
}

/// Where changes go: the upper directory and overlayfs' own.
pub(crate) struct Upper {
    pub(crate) files: PathBuf,
    pub(crate) work: PathBuf,
}

/// Mounts layers (topmost first) over each other at `target`. `empty` is an empty directory, which makes a
/// single layer enough.
pub(crate) fn overlay(
    target: &Path,
    layers: &[PathBuf],
    upper: Option<&Upper>,
    empty: &Path,
) -> Result<()> {
    if layers.is_empty() && upper.is_none() {
        // Nothing over nothing: the target is empty as it is.
        return Ok(());
    }
    let work = || -> io::Result<()> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for layer in layers.iter().map(PathBuf::as_path).chain([empty]) {
            fsconfig_set_string(&context, "lowerdir+", layer)?;
        }
        if let Some(upper) = upper {
            fsconfig_set_string(&context, "upperdir", &upper.files)?;
            fsconfig_set_string(&context, "workdir", &upper.work)?;
        }
        fsconfig_create(&context)?;
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        Ok(move_mount(&mount, "", rustix::fs::CWD, target, flags)?)
    };
    work().at("mount layers at", target)
}
