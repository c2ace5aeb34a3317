//! Pods' volumes on the node's disk: what each kind is made of, and their end.
//!
//! `mount` is idempotent: it is called again when a referred object changed or a token is due, and
//! rewrites only what differs. The layout is upstream's. Everything below `pods/` is reached by
//! descriptor (`crate::beneath`).

mod affinity;
mod allocations;
mod atomic;
mod claims;
pub(crate) mod csi;
mod fs;
mod manager;
pub(crate) mod message;
mod mount;
mod mounter;
mod on_disk;
mod ownership;
mod payload;
mod plugin;
mod plugins;
mod spec;
pub(crate) mod subpath;
mod table;
mod token;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{HostPathVolumeSource, Pod, Volume};

use crate::beneath::{self, Dir};
use crate::kubelet::Shared;
use crate::spec::{spec_of, uid_of};

pub(crate) use allocations::Allocations;
pub(crate) use manager::Manager;
pub(crate) use mount::mount;
pub(crate) use on_disk::OnDisk;
pub(crate) use token::Tokens;

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

/// The plugin of a volume that the kubelet makes; `None` for other kinds.
fn plugin_dir(volume: &Volume) -> Option<&'static str> {
    Some(match volume {
        Volume { empty_dir: Some(_), .. } => "kubernetes.io/empty-dir",
        Volume { config_map: Some(_), .. } => "kubernetes.io/configmap",
        Volume { secret: Some(_), .. } => "kubernetes.io/secret",
        Volume { projected: Some(_), .. } => "kubernetes.io/projected",
        Volume { downward_api: Some(_), .. } => "kubernetes.io/downward-api",
        _ => return None,
    })
}

/// A plugin's name as a part of a path.
fn escaped(plugin: &str) -> String {
    plugin.replace('/', "~")
}

/// Where a volume of a pod is mounted; `plugin` is escaped.
fn volume_dir(root: &Path, uid: &str, plugin: &str, name: &str) -> PathBuf {
    pod_dir(root, uid).join("volumes").join(plugin).join(name)
}

/// The name that all uses of a PersistentVolume on the node share.
fn unique_name(spec: &spec::Spec, plugin: &str) -> String {
    match spec.persistent_csi() {
        Some(csi) => format!("{plugin}/{}^{}", csi.driver, csi.volume_handle),
        None => format!("{plugin}/{}", spec.name()),
    }
}

/// Whether the pod's group is given to a volume only when its root does not fit.
fn change_policy(pod: &Pod) -> bool {
    let spec = spec_of(pod);
    let policy = spec.security_context.as_ref().and_then(|s| s.fs_group_change_policy.as_deref());
    policy == Some("OnRootMismatch")
}

/// Containers never write to what the kubelet itself writes (CVE-2017-1002102), nor to what the pod takes
/// for reading only.
pub(crate) fn is_read_only(volume: &Volume) -> bool {
    let claim = volume.persistent_volume_claim.as_ref().and_then(|c| c.read_only);
    let csi = volume.csi.as_ref().and_then(|c| c.read_only);
    let nfs = volume.nfs.as_ref().and_then(|n| n.read_only);
    [claim, csi, nfs].contains(&Some(true))
        || volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.projected.is_some()
        || volume.downward_api.is_some()
}

/// The volume's place on the host, if it follows from the volume alone; see [`Manager::directory`].
pub(crate) fn path(root: &Path, uid: &str, volume: &Volume) -> Option<PathBuf> {
    if let Some(host) = &volume.host_path {
        return Some(PathBuf::from(&host.path));
    }
    Some(pod_dir(root, uid).join("volumes").join(escaped(plugin_dir(volume)?)).join(&volume.name))
}

/// The open directory of a volume that the kubelet keeps.
pub(crate) fn directory(root: &Path, uid: &str, volume: &Volume) -> io::Result<Dir> {
    let plugin = plugin_dir(volume).ok_or(io::ErrorKind::Unsupported)?;
    open_pod_dir(root, uid)?
        .open(Path::new("volumes").join(escaped(plugin)))?
        .open_mount(&volume.name)
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
    /// `memory` makes it a tmpfs, with an optional size.
    fn new(of: &plugin::SetUp<'_>, plugin: &'static str, memory: Option<Option<u64>>) -> Place {
        Place {
            root: of.shared.config.root_dir.clone(),
            uid: uid_of(of.pod).to_owned(),
            plugin,
            name: of.spec.volume.name.clone(),
            memory,
            group: of.group,
        }
    }

    /// [`Place::make`], away from the async workers; where it is.
    async fn make_off_thread(self, files: Option<atomic::Files>) -> Result<PathBuf, String> {
        let at = volume_dir(&self.root, &self.uid, &escaped(self.plugin), &self.name);
        let shown = format!("{}/{}", escaped(self.plugin), self.name);
        let done = tokio::task::spawn_blocking(move || self.make(files)).await;
        match done.map_err(io::Error::other).and_then(|done| done) {
            Ok(()) => Ok(at),
            Err(error) => Err(format!("{shown}: {error}")),
        }
    }

    /// Makes the volume, with these files or empty.
    fn make(&self, files: Option<atomic::Files>) -> io::Result<()> {
        let parent = Path::new("volumes").join(escaped(self.plugin));
        let parent = make_pod_dir(&self.root, &self.uid)?.make(parent, beneath::PRIVATE)?;
        let dir = fs::empty_dir(&parent, &self.name, self.memory, self.group)?;
        files.map_or(Ok(()), |files| atomic::write(&dir, &files, self.group))
    }
}

/// Where raw block volumes of a pod are, below its directory.
const DEVICES: &str = "volumeDevices";

/// Unmounts and removes the pod's volumes, as they are found on the disk. Fails while something is still
/// mounted.
pub(crate) async fn tear_down(shared: &Arc<Shared>, uid: &str) -> io::Result<()> {
    let (root, top) = (&shared.config.root_dir, Path::new(uid));
    remove(root, [top.join(subpath::DIRECTORY)]).await?;
    for plugin in table::all() {
        plugin.tear_down(shared, uid).await.map_err(io::Error::other)?;
    }
    remove(root, [top.join("volumes"), top.join(DEVICES)]).await?;
    shared.volumes.forget(uid);
    Ok(())
}

/// Removes the pod's directory with all that is left in it.
pub(crate) async fn remove_pod_dir(shared: &Arc<Shared>, uid: &str) -> io::Result<()> {
    tear_down(shared, uid).await?;
    remove(&shared.config.root_dir, [PathBuf::from(uid)]).await
}

async fn remove<const N: usize>(root: &Path, paths: [PathBuf; N]) -> io::Result<()> {
    let pods = pods_dir(root);
    let work = move || paths.iter().try_for_each(|p| beneath::unmount_and_remove(&pods, p));
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests;
