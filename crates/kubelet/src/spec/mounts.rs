//! Which of the pod's volumes a container mounts, and where.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};
use runtime::cri::MountPropagation;

use super::expand::expand;
use super::{ConfigError, spec_of};
use crate::volumes::is_read_only;

/// One mount, before its sub-path is resolved on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlannedMount {
    pub(crate) volume: PathBuf,
    /// The volume's name, and the mount's number in the container's list.
    pub(crate) name: String,
    pub(crate) index: usize,
    /// Relative, without `..`; empty for the whole volume.
    pub(crate) sub_path: PathBuf,
    pub(crate) target: String,
    pub(crate) readonly: bool,
    pub(crate) recursive_read_only: bool,
    pub(crate) propagation: MountPropagation,
}

/// `volumes` are the host paths of the pod's mounted volumes; `recursive` says whether the runtime
/// makes whole trees read-only.
pub(crate) fn mounts(
    pod: &Pod,
    container: &Container,
    volumes: &HashMap<String, PathBuf>,
    environment: &[(String, Vec<u8>)],
    recursive: bool,
) -> Result<Vec<PlannedMount>, ConfigError> {
    let spec = spec_of(pod);
    let mut planned = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let declared = spec.volumes.iter().flatten().find(|v| v.name == mount.name);
        if declared.is_none() && !volumes.contains_key(&mount.name) {
            return Err(ConfigError(format!(
                "cannot find volume \"{}\" to mount into container \"{}\"",
                mount.name, container.name
            )));
        }
        let volume = volumes.get(&mount.name).ok_or_else(|| {
            ConfigError(format!("volume \"{}\" is not mounted on the node yet", mount.name))
        })?;
        let lookup = |name: &str| {
            let found = environment.iter().find(|(n, _)| n == name);
            found.map(|(_, v)| String::from_utf8_lossy(v).into_owned())
        };
        let sub = match (&mount.sub_path_expr, &mount.sub_path) {
            (Some(expr), _) if !expr.is_empty() => {
                let text = expand(expr, lookup)
                    .map_err(|_| ConfigError("subPathExpr: the path is too long".into()))?;
                if text.contains("$(") {
                    return Err(ConfigError("failed to prepare subPath for volumeMount: missing value for environment variable".into()));
                }
                text
            }
            (_, sub) => sub.clone().unwrap_or_default(),
        };
        planned.push(PlannedMount {
            volume: volume.clone(),
            name: mount.name.clone(),
            index,
            sub_path: checked(&sub, &mount.name, container)?,
            target: absolute(&mount.mount_path),
            readonly: mount.read_only.unwrap_or(false) || declared.is_some_and(is_read_only),
            recursive_read_only: recursive_read_only(mount, recursive)?,
            propagation: match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => MountPropagation::HostToContainer,
                Some("Bidirectional") => MountPropagation::Bidirectional,
                _ => MountPropagation::Private,
            },
        });
    }
    Ok(planned)
}

fn recursive_read_only(mount: &VolumeMount, supported: bool) -> Result<bool, ConfigError> {
    let name = &mount.name;
    let fail = |why: String| {
        let text = format!("failed to resolve recursive read-only mode: volume \"{name}\" {why}");
        Err(ConfigError(text))
    };
    let mode = mount.recursive_read_only.as_deref().unwrap_or("Disabled");
    if mode == "Disabled" {
        return Ok(false);
    }
    if mount.read_only != Some(true) {
        return fail("requested recursive read-only mode, but it is not read-only".into());
    }
    if let Some(other) = mount.mount_propagation.as_deref().filter(|p| *p != "None") {
        return fail(format!(
            "requested recursive read-only mode, but it is not compatible with propagation \"{other}\""
        ));
    }
    match mode {
        "IfPossible" => Ok(supported),
        "Enabled" if supported => Ok(true),
        "Enabled" => fail(
            "requested recursive read-only mode, but it is not supported by the runtime".into(),
        ),
        _ => fail(format!("has an unknown recursive read-only mode \"{mode}\"")),
    }
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn checked(sub: &str, volume: &str, container: &Container) -> Result<PathBuf, ConfigError> {
    let path = Path::new(sub);
    let inside = path.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if inside {
        return Ok(path.components().filter(|c| matches!(c, Component::Normal(_))).collect());
    }
    let name = &container.name;
    Err(ConfigError(format!(
        "failed to prepare subPath for volumeMount \"{volume}\" of container \"{name}\""
    )))
}
