//! A volume as plugins see it: the pod's own source, or the PersistentVolume behind its claim.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, Pod,
    Volume,
};

use crate::spec::spec_of;

/// The PersistentVolume behind a claim of the pod.
#[derive(Debug, Clone)]
pub(crate) struct Persistent {
    pub(crate) volume: Arc<PersistentVolume>,
    pub(crate) claim: Arc<PersistentVolumeClaim>,
    /// The pod mounts its claim read-only.
    pub(crate) read_only: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Spec {
    /// The entry of `spec.volumes`.
    pub(crate) volume: Volume,
    pub(crate) persistent: Option<Persistent>,
}

impl Spec {
    /// The name in paths and messages: the PersistentVolume's, or that of the pod's volume.
    pub(crate) fn name(&self) -> &str {
        let persistent = self.persistent.as_ref().and_then(|p| p.volume.metadata.name.as_deref());
        persistent.unwrap_or(&self.volume.name)
    }

    pub(crate) fn source(&self) -> Option<&PersistentVolumeSpec> {
        self.persistent.as_ref()?.volume.spec.as_ref()
    }

    pub(crate) fn persistent_csi(&self) -> Option<&CSIPersistentVolumeSource> {
        self.source()?.csi.as_ref()
    }

    pub(crate) fn is_block(&self) -> bool {
        self.source().and_then(|s| s.volume_mode.as_deref()) == Some("Block")
    }

    pub(crate) fn mount_options(&self) -> &[String] {
        self.source().and_then(|s| s.mount_options.as_deref()).unwrap_or_default()
    }

    pub(crate) fn access_modes(&self) -> &[String] {
        self.source().and_then(|s| s.access_modes.as_deref()).unwrap_or_default()
    }

    /// Whether the pod only reads it.
    pub(crate) fn read_only(&self) -> bool {
        match &self.persistent {
            Some(persistent) => persistent.read_only,
            None => super::is_read_only(&self.volume),
        }
    }
}

/// Whether any container of the pod has the volume as a file system, and as a device.
pub(super) fn uses(pod: &Pod, volume: &str) -> (bool, bool) {
    let spec = spec_of(pod);
    let (mut mounted, mut device) = (false, false);
    for c in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        mounted |= c.volume_mounts.iter().flatten().any(|m| m.name == volume);
        device |= c.volume_devices.iter().flatten().any(|d| d.name == volume);
    }
    for c in spec.ephemeral_containers.iter().flatten() {
        mounted |= c.volume_mounts.iter().flatten().any(|m| m.name == volume);
        device |= c.volume_devices.iter().flatten().any(|d| d.name == volume);
    }
    (mounted, device)
}
