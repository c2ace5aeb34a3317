//! A part of a volume for one mount of one container.
//!
//! The part is resolved once to a descriptor, and the descriptor is bound to a place of the
//! kubelet's own that no container can reach: the runtime is given that place. Between the check
//! and the mount there is no path that a container could change (CVE-2021-25741). The layout is
//! upstream's: `volume-subpaths/<volume>/<container>/<index of the mount>`.

use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Volume;

use crate::beneath::{self, Access, Dir, Held};

pub(crate) const DIRECTORY: &str = "volume-subpaths";
const FILE_MODE: u32 = 0o640;

/// Which mount of which container.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mount<'a> {
    pub(crate) volume: &'a Volume,
    /// Where the volume is, unless it is one of the kubelet's own directories.
    pub(crate) place: &'a Path,
    pub(crate) container: &'a str,
    pub(crate) index: usize,
    pub(crate) sub: &'a Path,
}

/// Why a part cannot be mounted. The cause is for the log only: it tells of the host's files.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error(
        "failed to create subPath directory for volumeMount \"{volume}\" of container \"{container}\""
    )]
    Create {
        volume: String,
        container: String,
        #[source]
        source: io::Error,
    },
    #[error("failed to prepare subPath for volumeMount \"{volume}\" of container \"{container}\"")]
    Prepare {
        volume: String,
        container: String,
        #[source]
        source: io::Error,
    },
}

impl Mount<'_> {
    fn not_created(&self, source: io::Error) -> Failed {
        let (volume, container) = (self.volume.name.clone(), self.container.to_owned());
        Failed::Create { volume, container, source }
    }

    fn not_prepared(&self, source: io::Error) -> Failed {
        let (volume, container) = (self.volume.name.clone(), self.container.to_owned());
        Failed::Prepare { volume, container, source }
    }
}

/// The part itself. A missing directory is made.
fn resolve(root: &Path, uid: &str, mount: &Mount<'_>) -> Result<Held, Failed> {
    let volume = match super::plugin_dir(mount.volume) {
        None => beneath::Volume::host(mount.place),
        Some(_) => super::directory(root, uid, mount.volume).map(beneath::Volume::of),
    };
    let volume = volume.map_err(|e| mount.not_prepared(e))?;
    match volume.find(mount.sub).map_err(|e| mount.not_prepared(e))? {
        Some(held) => Ok(held),
        None => volume.make(mount.sub).map_err(|e| mount.not_created(e)),
    }
}

/// Binds the part to its place, whose path the runtime is given.
pub(crate) fn prepare(root: &Path, uid: &str, mount: &Mount<'_>) -> Result<PathBuf, Failed> {
    let held = resolve(root, uid, mount)?;
    place(root, uid, mount, &held).map_err(|e| mount.not_prepared(e))
}

/// What an earlier run of the container left at the place goes first.
fn place(root: &Path, uid: &str, mount: &Mount<'_>, held: &Held) -> io::Result<PathBuf> {
    let place = Path::new(DIRECTORY).join(&mount.volume.name).join(mount.container);
    let dir = super::make_pod_dir(root, uid)?.make(&place, beneath::PRIVATE)?;
    let name = mount.index.to_string();
    let name = Path::new(&name);
    remove(&dir, name)?;
    match held.is_directory()? {
        true => drop(dir.make(name, beneath::PRIVATE)?),
        false => dir.create(name, b"", Access::mode(FILE_MODE))?,
    }
    beneath::bind(held, &dir, name)?;
    Ok(super::pod_dir(root, uid).join(place).join(name))
}

fn remove(dir: &Dir, name: &Path) -> io::Result<()> {
    beneath::unmount(dir, name)?;
    dir.remove(name)
}

/// Takes away what was prepared for a container: its runtime has mounted it, or never will.
pub(crate) fn release(root: &Path, uid: &str, container: &str) -> io::Result<()> {
    let top = match super::open_pod_dir(root, uid).and_then(|dir| dir.open(DIRECTORY)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for volume in top.names()? {
        let volume = top.open(volume)?;
        if volume.stat(container)?.is_none() {
            continue;
        }
        let dir = volume.open(container)?;
        for name in dir.names()? {
            remove(&dir, Path::new(&name))?;
        }
        volume.remove(container)?;
    }
    Ok(())
}
