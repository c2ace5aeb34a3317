//! Pods' volumes on the node's disk: what each kind is made of, and their end.
//!
//! `mount` is idempotent: it is called again when a referred object changed or a token is due, and
//! rewrites only what differs. The layout is the original's.

mod atomic;
mod fs;
mod payload;
pub(crate) mod subpath;
mod token;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{HostPathVolumeSource, Pod, Volume};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::kubelet::Shared;
use crate::objects::User;
use crate::spec::{quantity, spec_of, uid_of};

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

/// The volume's place on the host; `None` for kinds that are not supported.
pub(crate) fn path(root: &Path, uid: &str, volume: &Volume) -> Option<PathBuf> {
    if let Some(host) = &volume.host_path {
        return Some(PathBuf::from(&host.path));
    }
    let plugin = match volume {
        Volume { empty_dir: Some(_), .. } => "kubernetes.io~empty-dir",
        Volume { config_map: Some(_), .. } => "kubernetes.io~configmap",
        Volume { secret: Some(_), .. } => "kubernetes.io~secret",
        Volume { projected: Some(_), .. } => "kubernetes.io~projected",
        Volume { downward_api: Some(_), .. } => "kubernetes.io~downward-api",
        _ => return None,
    };
    Some(pod_dir(root, uid).join("volumes").join(plugin).join(&volume.name))
}

/// Makes all volumes of the pod; when to call again for the sake of tokens.
pub(crate) async fn mount(
    shared: &Arc<Shared>,
    pod: &Pod,
    user: &User,
    tokens: &Tokens,
) -> Result<Option<Timestamp>, VolumeError> {
    let mut refresh: Option<Timestamp> = None;
    for volume in spec_of(pod).volumes.iter().flatten() {
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
    let Some(dir) = path(&shared.config.root_dir, uid_of(pod), volume) else {
        return Err("this kind of volume is not supported by this node".into());
    };
    let spec = spec_of(pod);
    let group = spec.security_context.as_ref().and_then(|s| s.fs_group);
    let group = group.and_then(|g| u32::try_from(g).ok());
    let failed = |e: io::Error| format!("{}: {e}", dir.display());
    if let Some(host) = &volume.host_path {
        return fs::host_path(host).map(|()| None);
    }
    if let Some(empty) = &volume.empty_dir {
        let in_memory = empty.medium.as_deref() == Some("Memory");
        let limit = empty.size_limit.as_ref().and_then(quantity::units).filter(|n| *n > 0);
        let limit = limit.and_then(|n| u64::try_from(n).ok());
        fs::empty_dir(&dir, in_memory.then_some(limit), group).map_err(failed)?;
        return Ok(None);
    }
    let made = payload::of(shared, pod, volume, user, tokens).await?;
    if volume.config_map.is_none() {
        fs::empty_dir(&dir, Some(None), None).map_err(failed)?;
    }
    atomic::write(&dir, &made.files, group).map_err(failed)?;
    Ok(made.refresh_at)
}

/// A file for the container's last words.
pub(crate) fn message_file(pod_dir: &Path, container: &str, attempt: u32) -> io::Result<PathBuf> {
    let dir = pod_dir.join("containers").join(container);
    std::fs::create_dir_all(&dir)?;
    let path = dir.join(format!("{attempt:08x}"));
    std::fs::write(&path, b"")?;
    // Whatever user the container runs as must be able to write it.
    fs::set_mode(&path, 0o666)?;
    Ok(path)
}

/// Unmounts and removes the pod's volumes. What cannot be removed is logged and tried again with
/// the pod's directory.
pub(crate) async fn tear_down(root: &Path, uid: &str) {
    let dir = pod_dir(root, uid);
    let done = tokio::task::spawn_blocking(move || {
        unmount_below(&dir);
        std::fs::remove_dir_all(dir.join("volumes"))
    });
    match done.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
        Ok(Err(error)) => tracing::warn!(%error, uid, "volumes not removed"),
        Err(error) => tracing::error!(%error, uid, "volume removal failed"),
    }
}

/// Unmounts every mount below `dir`, deepest first.
fn unmount_below(dir: &Path) {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    let mut below: Vec<PathBuf> = points.filter(|p| p.starts_with(dir)).collect();
    below.sort();
    for point in below.iter().rev() {
        if let Err(error) = rustix::mount::unmount(point, UnmountFlags::DETACH) {
            tracing::warn!(%error, point = %point.display(), "volume not unmounted");
        }
    }
}

/// Mount tables write spaces and such as `\040`.
fn unescape(text: &str) -> PathBuf {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let code = after.get(..3).and_then(|c| u8::from_str_radix(c, 8).ok());
        match code {
            Some(byte) => out.push(char::from(byte)),
            None => out.push('\\'),
        }
        rest = if code.is_some() { &after[3..] } else { after };
    }
    out.push_str(rest);
    PathBuf::from(out)
}

const NO_FLAGS: MountFlags = MountFlags::empty();

#[cfg(test)]
mod tests;
