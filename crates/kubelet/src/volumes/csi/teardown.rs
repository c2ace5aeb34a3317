//! Out of a pod, by what is found on the disk: unpublished for the pod, unstaged with the last pod of the node.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use csi::v1::{NodeRpcType, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest};

use super::super::{DEVICES, pod_dir, pods_dir};
use super::data::{self, Data};
use super::drivers::Capabilities;
use super::{names, said};
use crate::kubelet::Shared;

/// All volumes of drivers that the pod has. One that fails holds up none of the others.
pub(super) async fn pod(shared: &Arc<Shared>, uid: &str) -> Result<(), String> {
    let root = &shared.config.root_dir;
    let read = |e: io::Error| said(e);
    let volumes = pod_dir(root, uid).join("volumes").join(names::ESCAPED);
    let devices = pod_dir(root, uid).join(DEVICES).join(names::ESCAPED);
    let mut failed = Vec::new();
    for name in data::names_in(&volumes).map_err(read)? {
        failed.extend(file_system(shared, uid, &volumes.join(&name), &name).await.err());
    }
    for name in data::names_in(&devices).map_err(read)? {
        failed.extend(device(shared, uid, &name).await.err());
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
}

async fn file_system(
    shared: &Arc<Shared>,
    uid: &str,
    dir: &Path,
    name: &str,
) -> Result<(), String> {
    // Without the file the driver was never called, or has ended its part.
    let Some(data) = Data::load(dir).map_err(|e| e.to_string())? else { return Ok(()) };
    let lock = data.unique().unwrap_or_else(|| format!("{}/{}", super::NAME, data.volume_handle));
    let _own = shared.volumes.exclusive(&lock).await;
    let driver = shared.volumes.csi.drivers.get(&data.driver_name);
    let driver = driver
        .map_err(|why| said(format!("Unmounter.TearDownAt failed to get CSI client: {why}")))?;
    let target = names::target(&shared.config.root_dir, uid, name);
    let request = NodeUnpublishVolumeRequest {
        volume_id: data.volume_handle.clone(),
        target_path: target.to_string_lossy().into_owned(),
    };
    let done = driver.client.node_unpublish_volume(&request).await;
    done.map_err(|e| said(format!("Unmounter.TearDownAt failed: {}", e.go_text())))?;
    shared.volumes.csi.set_published(uid, name, None);
    data::remove(&target).map_err(|e| {
        let text = "Unmounter.TearDownAt failed to clean mount dir";
        said(format!("{text} [{}]: {e}", target.display()))
    })?;
    match data.unique() {
        Some(unique) if !in_another_pod(&shared.config.root_dir, name, "volumes") => {
            let staging =
                names::staging(&shared.config.root_dir, &data.driver_name, &data.volume_handle);
            unstage(shared, &data, &staging).await?;
            ended(shared, &unique);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The volume is nowhere on the node any more.
fn ended(shared: &Shared, unique: &str) {
    shared.volumes.csi.set_staged(unique, false);
    if shared.volumes.use_ends(unique) {
        shared.status_due.notify_one();
    }
}

/// Whether another pod's directory has the PersistentVolume of this name.
fn in_another_pod(root: &Path, name: &str, kind: &str) -> bool {
    let pods = pods_dir(root);
    let all = data::names_in(&pods).unwrap_or_default();
    all.iter().any(|uid| {
        pods.join(uid).join(kind).join(names::ESCAPED).join(name).symlink_metadata().is_ok()
    })
}

async fn unstage(shared: &Arc<Shared>, data: &Data, staging: &Path) -> Result<(), String> {
    if !staging.exists() {
        return Ok(());
    }
    let driver = shared.volumes.csi.drivers.get(&data.driver_name).map_err(|why| {
        said(format!("attacher.UnmountDevice failed to create newCsiDriverClient: {why}"))
    })?;
    let capabilities = Capabilities::of(&driver).await.map_err(|why| {
        said(format!(
            "attacher.UnmountDevice failed to check whether STAGE_UNSTAGE_VOLUME set: {why}"
        ))
    })?;
    if capabilities.has(NodeRpcType::StageUnstageVolume) {
        let request = NodeUnstageVolumeRequest {
            volume_id: data.volume_handle.clone(),
            staging_target_path: staging.to_string_lossy().into_owned(),
        };
        let done = driver.client.node_unstage_volume(&request).await;
        done.map_err(|e| said(format!("attacher.UnmountDevice failed: {}", e.go_text())))?;
    }
    data::remove(staging)
        .map_err(|e| format!("failed to clean up global mount {}: {e}", staging.display()))
}

async fn device(shared: &Arc<Shared>, uid: &str, name: &str) -> Result<(), String> {
    let root = &shared.config.root_dir;
    let places = names::block(root, uid, name);
    let read = |e: io::Error| said(e);
    let Some(data) = Data::load(&places.data).map_err(read)? else {
        return gone(std::fs::remove_file(&places.link)).map_err(read);
    };
    let unique = data.unique().unwrap_or_default();
    let _own = shared.volumes.exclusive(&unique).await;
    let driver = shared.volumes.csi.drivers.get(&data.driver_name).map_err(|why| {
        said(format!("blockMapper.UnmapPodDevice failed to get CSI client: {why}"))
    })?;
    let request = NodeUnpublishVolumeRequest {
        volume_id: data.volume_handle.clone(),
        target_path: places.publish.to_string_lossy().into_owned(),
    };
    let done = driver.client.node_unpublish_volume(&request).await;
    done.map_err(|e| said(format!("blockMapper.unpublishVolumeForBlock failed: {}", e.go_text())))?;
    shared.volumes.csi.set_published(uid, name, None);
    gone(std::fs::remove_file(&places.publish)).map_err(read)?;
    gone(std::fs::remove_file(&places.link)).map_err(read)?;
    if in_another_pod(root, name, DEVICES) {
        return Ok(());
    }
    unstage_device(shared, &data, &places.staging).await?;
    data::remove_file(&places.data).map_err(read)?;
    let dirs: [Option<PathBuf>; 3] = [
        places.publish.parent().map(Path::to_owned),
        Some(places.data.clone()),
        places.data.parent().map(Path::to_owned),
    ];
    for dir in dirs.into_iter().flatten() {
        gone(std::fs::remove_dir(dir)).map_err(read)?;
    }
    ended(shared, &unique);
    Ok(())
}

async fn unstage_device(shared: &Arc<Shared>, data: &Data, staging: &Path) -> Result<(), String> {
    if !staging.exists() {
        return Ok(());
    }
    let driver = shared.volumes.csi.drivers.get(&data.driver_name).map_err(|why| {
        said(format!("blockMapper.TearDownDevice failed to get CSI client: {why}"))
    })?;
    let request = NodeUnstageVolumeRequest {
        volume_id: data.volume_handle.clone(),
        staging_target_path: staging.to_string_lossy().into_owned(),
    };
    let done = driver.client.node_unstage_volume(&request).await;
    done.map_err(|e| said(format!("blockMapper.unstageVolumeForBlock failed: {}", e.go_text())))?;
    // A driver may stage in a file of its own below the directory, and takes it away itself.
    gone(std::fs::remove_dir(staging)).map_err(|e| {
        said(format!("failed to delete volume staging path [{}]: {e}", staging.display()))
    })
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
