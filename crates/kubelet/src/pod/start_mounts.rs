//! What a container mounts: volumes, parts of them, images, and the files that the kubelet itself gives it.

use std::collections::HashMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, VolumeDevice};
use runtime::cri::{Device, ImageSpec, Mount, MountPropagation};

use super::start::Start;
use crate::spec::{ConfigError, described, mounts, spec_of, uid_of};
use crate::volumes;

impl Start {
    pub(super) async fn mounts(
        &self,
        spec: &Container,
        environment: &[(String, Vec<u8>)],
        image_volumes: &HashMap<String, ImageSpec>,
    ) -> Result<Vec<Mount>, ConfigError> {
        let root = &self.shared.config.root_dir;
        let uid = uid_of(&self.pod);
        let pod_spec = spec_of(&self.pod);
        let paths: HashMap<String, PathBuf> = pod_spec
            .volumes
            .iter()
            .flatten()
            .filter_map(|v| {
                let own = volumes::path(root, uid, v);
                let at = own.or_else(|| self.shared.volumes.directory(uid, &v.name))?;
                Some((v.name.clone(), at))
            })
            // The runtime finds these itself.
            .chain(image_volumes.keys().map(|name| (name.clone(), PathBuf::new())))
            .collect();
        let recursive = self.recursive_read_only(spec).await;
        let planned = mounts::mounts(&self.pod, spec, &paths, environment, recursive)?;
        let mut out = Vec::with_capacity(planned.len() + 2);
        for mount in planned {
            if let Some(image) = image_volumes.get(&mount.name) {
                out.push(Mount {
                    container_path: mount.target,
                    readonly: true,
                    image: Some(image.clone()),
                    image_sub_path: mount.sub_path.to_string_lossy().into_owned(),
                    propagation: MountPropagation::Private as i32,
                    ..Mount::default()
                });
                continue;
            }
            out.push(Mount {
                host_path: self.source(spec, &mount)?.to_string_lossy().into_owned(),
                container_path: mount.target,
                readonly: mount.readonly,
                recursive_read_only: mount.recursive_read_only,
                propagation: mount.propagation as i32,
                ..Mount::default()
            });
        }
        self.own_files(spec, &mut out)?;
        Ok(out)
    }

    /// The raw block volumes that the container has as devices.
    pub(super) fn devices(&self, spec: &Container) -> Result<Vec<Device>, ConfigError> {
        let pod = spec_of(&self.pod);
        let one = |device: &VolumeDevice| {
            let mut declared = pod.volumes.iter().flatten();
            let read_only =
                declared.find(|v| v.name == device.name).is_some_and(volumes::is_read_only);
            let at = self.shared.volumes.device(uid_of(&self.pod), &device.name);
            let missing =
                || ConfigError(format!("volume \"{}\" is not mapped on the node yet", device.name));
            Ok(Device {
                container_path: device.device_path.clone(),
                host_path: at.ok_or_else(missing)?.to_string_lossy().into_owned(),
                permissions: if read_only { "r" } else { "mrw" }.into(),
            })
        };
        spec.volume_devices.iter().flatten().map(one).collect()
    }

    /// Whether the runtime makes whole trees read-only; asked only when it matters.
    async fn recursive_read_only(&self, spec: &Container) -> bool {
        let mut all = spec.volume_mounts.iter().flatten();
        if !all.any(|m| m.recursive_read_only.is_some()) {
            return false;
        }
        let features = self.shared.handler_features(&self.handler).await;
        features.is_ok_and(|f| f.recursive_read_only_mounts)
    }

    /// The path that the runtime mounts: the volume, or the place where a part of it was bound.
    fn source(
        &self,
        spec: &Container,
        mount: &mounts::PlannedMount,
    ) -> Result<PathBuf, ConfigError> {
        if mount.sub_path.as_os_str().is_empty() {
            return Ok(mount.volume.clone());
        }
        let pod_spec = spec_of(&self.pod);
        let mut declared = pod_spec.volumes.iter().flatten();
        let volume = declared.find(|v| v.name == mount.name);
        let volume = volume.ok_or_else(|| ConfigError(format!("no volume \"{}\"", mount.name)))?;
        let part = volumes::subpath::Mount {
            volume,
            place: &mount.volume,
            container: &spec.name,
            index: mount.index,
            sub: &mount.sub_path,
        };
        let uid = uid_of(&self.pod);
        volumes::subpath::prepare(&self.shared.config.root_dir, uid, &part).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(pod = described(&self.pod), cause, "{error}");
            ConfigError(error.to_string())
        })
    }

    /// The runtime has what it needs of the bound parts, or never will.
    pub(super) fn release_sub_paths(&self, spec: &Container) {
        let mut all = spec.volume_mounts.iter().flatten();
        let set = |text: &Option<String>| text.as_ref().is_some_and(|t| !t.is_empty());
        if !all.any(|m| set(&m.sub_path) || set(&m.sub_path_expr)) {
            return;
        }
        let (root, uid) = (&self.shared.config.root_dir, uid_of(&self.pod));
        if let Err(error) = volumes::subpath::release(root, uid, &spec.name) {
            // The pod's end takes them away.
            tracing::warn!(%error, pod = described(&self.pod), "sub paths not released");
        }
    }

    /// `/etc/hosts` and the termination message file.
    fn own_files(&self, spec: &Container, out: &mut Vec<Mount>) -> Result<(), ConfigError> {
        let root = &self.shared.config.root_dir;
        let uid = uid_of(&self.pod);
        let bind = |host: PathBuf, target: &str| Mount {
            container_path: target.to_owned(),
            host_path: host.to_string_lossy().into_owned(),
            propagation: MountPropagation::Private as i32,
            ..Mount::default()
        };
        if !out.iter().any(|m| m.container_path == "/etc/hosts") {
            out.push(bind(volumes::pod_dir(root, uid).join("etc-hosts"), "/etc/hosts"));
        }
        let path = spec.termination_message_path.as_deref().filter(|p| !p.is_empty());
        if let Some(target) = path {
            let file = volumes::message::make(root, uid, &spec.name, self.attempt)
                .map_err(|e| ConfigError(format!("create termination message file: {e}")))?;
            out.push(bind(file, target));
        }
        Ok(())
    }
}
