//! Pods' volumes on the node's disk: what each kind is made of, and their end.
//!
//! `mount` is idempotent: it is called again when a referred object changed or a token is due, and
//! rewrites only what differs. The layout is upstream's. Everything below `pods/` is reached by
//! descriptor (`crate::beneath`).

mod allocations;
mod atomic;
mod fs;
pub(crate) mod message;
mod on_disk;
mod payload;
pub(crate) mod subpath;
mod token;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{HostPathVolumeSource, Pod, Volume};

use crate::beneath::{self, Dir};
use crate::kubelet::Shared;
use crate::objects::User;
use crate::spec::{quantity, resources, spec_of, uid_of};

pub(crate) use allocations::Allocations;
pub(crate) use on_disk::OnDisk;
pub(crate) use token::Tokens;

/// Why a volume is not there; shown in a `FailedMount` event.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {why}")]
    SetUp { volume: String, why: String },
}

pub(crate) fn pod_dir(root: &Path, uid: &str) -> PathBuf {
    root.join("pods").join(uid)
}

/// All pods' directories.
pub(crate) fn pods_dir(root: &Path) -> PathBuf {
    root.join("pods")
}

/// The pod's directory, made when it is missing.
pub(crate) fn make_pod_dir(root: &Path, uid: &str) -> io::Result<Dir> {
    Dir::make_root(&pods_dir(root))?.make(uid, beneath::PRIVATE)
}

/// The pod's directory, if it is there.
pub(crate) fn open_pod_dir(root: &Path, uid: &str) -> io::Result<Dir> {
    Dir::root(&pods_dir(root))?.open(uid)
}

/// The plugin's part of the path of a volume that the kubelet makes; `None` for other kinds.
fn plugin(volume: &Volume) -> Option<&'static str> {
    Some(match volume {
        Volume { empty_dir: Some(_), .. } => "kubernetes.io~empty-dir",
        Volume { config_map: Some(_), .. } => "kubernetes.io~configmap",
        Volume { secret: Some(_), .. } => "kubernetes.io~secret",
        Volume { projected: Some(_), .. } => "kubernetes.io~projected",
        Volume { downward_api: Some(_), .. } => "kubernetes.io~downward-api",
        _ => return None,
    })
}

/// Containers never write to what the kubelet itself writes (CVE-2017-1002102).
pub(crate) fn is_read_only(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.projected.is_some()
        || volume.downward_api.is_some()
}

/// The volume's place on the host; `None` for kinds that are not supported.
pub(crate) fn path(root: &Path, uid: &str, volume: &Volume) -> Option<PathBuf> {
    if let Some(host) = &volume.host_path {
        return Some(PathBuf::from(&host.path));
    }
    Some(pod_dir(root, uid).join("volumes").join(plugin(volume)?).join(&volume.name))
}

/// The open directory of a volume that the kubelet keeps.
pub(crate) fn directory(root: &Path, uid: &str, volume: &Volume) -> io::Result<Dir> {
    let plugin = plugin(volume).ok_or(io::ErrorKind::Unsupported)?;
    open_pod_dir(root, uid)?.open(Path::new("volumes").join(plugin))?.open_mount(&volume.name)
}

/// The content of a file in a volume that the kubelet keeps. Links in it are the containers' own, and
/// followed as long as they stay inside.
pub(crate) fn read(
    root: &Path,
    uid: &str,
    volume: &Volume,
    path: &Path,
    limit: usize,
) -> io::Result<Vec<u8>> {
    let volume = beneath::Volume::of(directory(root, uid, volume)?);
    let held = volume.find(path)?.ok_or(io::ErrorKind::NotFound)?;
    held.read(limit)
}

/// Makes all volumes of the pod; when to call again for the sake of tokens.
pub(crate) async fn mount(
    shared: &Arc<Shared>,
    pod: &Pod,
    user: &User,
    tokens: &Tokens,
) -> Result<Option<Timestamp>, VolumeError> {
    let mut refresh: Option<Timestamp> = None;
    // Images are the runtime's to mount, container by container.
    for volume in spec_of(pod).volumes.iter().flatten().filter(|v| v.image.is_none()) {
        let at = one(shared, pod, volume, user, tokens).await;
        let at = at.map_err(|why| VolumeError::SetUp { volume: volume.name.clone(), why })?;
        refresh = [refresh, at].into_iter().flatten().min();
    }
    Ok(refresh)
}

async fn one(
    shared: &Arc<Shared>,
    pod: &Pod,
    volume: &Volume,
    user: &User,
    tokens: &Tokens,
) -> Result<Option<Timestamp>, String> {
    let unsupported = "this kind of volume is not supported by this node";
    let spec = spec_of(pod);
    let group = spec.security_context.as_ref().and_then(|s| s.fs_group);
    let group = group.and_then(|g| u32::try_from(g).ok());
    if let Some(host) = &volume.host_path {
        return fs::host_path(host).map(|()| None);
    }
    let plugin = plugin(volume).ok_or(unsupported)?;
    let in_memory = match volume.empty_dir.as_ref().map(|e| e.medium.as_deref().unwrap_or("")) {
        None => volume.config_map.is_none(),
        Some("") => false,
        Some("Memory") => true,
        Some(other) => return Err(format!("{unsupported}: emptyDir with medium {other:?}")),
    };
    let made = match volume.empty_dir {
        Some(_) => None,
        None => Some(payload::of(shared, pod, volume, user, tokens).await?),
    };
    let refresh_at = made.as_ref().and_then(|made| made.refresh_at);
    let place = Place {
        root: shared.config.root_dir.clone(),
        uid: uid_of(pod).to_owned(),
        plugin,
        name: volume.name.clone(),
        memory: in_memory.then(|| memory_size(shared, pod, volume)),
        group,
    };
    let work = move || place.make(made.map(|made| made.files));
    let done = tokio::task::spawn_blocking(work).await.map_err(io::Error::other);
    match done.and_then(|done| done) {
        Ok(()) => Ok(refresh_at),
        Err(error) => Err(format!("{plugin}/{}: {error}", volume.name)),
    }
}

/// A volume of the kubelet's own on the disk.
struct Place {
    root: PathBuf,
    uid: String,
    plugin: &'static str,
    name: String,
    memory: Option<Option<u64>>,
    group: Option<u32>,
}

impl Place {
    /// Makes the volume, with these files or empty.
    fn make(&self, files: Option<atomic::Files>) -> io::Result<()> {
        let parent = Path::new("volumes").join(self.plugin);
        let parent = make_pod_dir(&self.root, &self.uid)?.make(parent, beneath::PRIVATE)?;
        let dir = fs::empty_dir(&parent, &self.name, self.memory, self.group)?;
        files.map_or(Ok(()), |files| atomic::write(&dir, &files, self.group))
    }
}

/// Most bytes of a volume in memory: its own limit, the pod's, or all that pods may use.
fn memory_size(shared: &Shared, pod: &Pod, volume: &Volume) -> Option<u64> {
    let own = volume.empty_dir.as_ref().and_then(|e| e.size_limit.as_ref());
    let own = own.and_then(quantity::units).and_then(|n| i64::try_from(n).ok());
    let limits = [
        own,
        Some(resources::pod_resources(pod).memory_limit_in_bytes),
        Some(shared.node_resources().allocatable_memory_bytes),
    ];
    let least = limits.into_iter().flatten().filter(|n| *n > 0).min();
    least.and_then(|n| u64::try_from(n).ok())
}

/// Unmounts and removes the pod's volumes. Fails while something is still mounted.
pub(crate) async fn tear_down(root: &Path, uid: &str) -> io::Result<()> {
    remove(root, [Path::new(uid).join(subpath::DIRECTORY), Path::new(uid).join("volumes")]).await
}

/// Removes the pod's directory with all that is left in it.
pub(crate) async fn remove_pod_dir(root: &Path, uid: &str) -> io::Result<()> {
    remove(root, [PathBuf::from(uid)]).await
}

async fn remove<const N: usize>(root: &Path, paths: [PathBuf; N]) -> io::Result<()> {
    let pods = pods_dir(root);
    let work = move || paths.iter().try_for_each(|p| beneath::unmount_and_remove(&pods, p));
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests;
