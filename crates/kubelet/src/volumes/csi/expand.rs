//! A volume that has grown: the driver resizes the file system on the node, and the claim is told its new
//! size.

use std::path::{Path, PathBuf};

use client::{EventType, Patch};
use csi::v1::{CapacityRange, NodeExpandVolumeRequest, VolumeCapability};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};

use super::super::plugin::{Failed, SetUp};
use super::drivers::Driver;
use super::mount::read_secret;
use crate::pod::pod_reference;
use crate::spec::quantity;

const STORAGE: &str = "storage";
/// Conditions of a claim that are over when its volume has its size.
const OVER: [&str; 4] =
    ["FileSystemResizePending", "Resizing", "ControllerResizeError", "NodeResizeError"];

/// The volume as its driver knows it.
pub(super) struct Volume<'a> {
    pub(super) handle: &'a str,
    pub(super) path: &'a Path,
    pub(super) staging: Option<PathBuf>,
    pub(super) capability: VolumeCapability,
}

/// The size that the volume has and the claim does not show yet.
fn wanted(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<(Quantity, i64)> {
    let has = volume.spec.as_ref()?.capacity.as_ref()?.get(STORAGE)?;
    let shown = claim.status.as_ref()?.capacity.as_ref()?.get(STORAGE)?;
    let bytes = quantity::units(has)?;
    let grown = bytes > quantity::units(shown)?;
    grown.then(|| Some((has.clone(), i64::try_from(bytes).ok()?))).flatten()
}

/// What the claim's status becomes.
fn status(claim: &PersistentVolumeClaim, size: &Quantity) -> Value {
    let old = claim.status.clone().unwrap_or_default();
    let conditions: Vec<_> = old
        .conditions
        .unwrap_or_default()
        .into_iter()
        .filter(|c| !OVER.contains(&c.type_.as_str()))
        .collect();
    json!({"status": {
        "capacity": {STORAGE: size},
        "conditions": conditions,
        "allocatedResourceStatuses": {STORAGE: null},
    }})
}

/// Does nothing unless the volume has grown.
pub(super) async fn run(
    of: &SetUp<'_>,
    driver: &Driver,
    volume: &Volume<'_>,
) -> Result<(), Failed> {
    let Some(persistent) = of.spec.persistent.as_ref() else { return Ok(()) };
    let Some((size, bytes)) = wanted(&persistent.volume, &persistent.claim) else { return Ok(()) };
    if persistent.read_only {
        return Ok(());
    }
    let failed = |why: String| Failed::new("MountVolume.Setup failed while expanding volume", why);
    let reference = of.spec.persistent_csi().and_then(|c| c.node_expand_secret_ref.clone());
    let reference = reference.unwrap_or_default();
    let secret = reference.namespace.zip(reference.name);
    let secrets = read_secret(of.shared, secret.as_ref(), "NodeExpandSecretRef").await;
    let request = NodeExpandVolumeRequest {
        volume_id: volume.handle.to_owned(),
        volume_path: volume.path.to_string_lossy().into_owned(),
        capacity_range: Some(CapacityRange { required_bytes: bytes, limit_bytes: 0 }),
        staging_target_path: volume
            .staging
            .as_ref()
            .map(|p| p.to_string_lossy().into_owned())
            .unwrap_or_default(),
        volume_capability: Some(volume.capability.clone()),
        secrets: secrets.map_err(failed)?,
    };
    let about = pod_reference(of.pod);
    if let Err(error) = driver.client.node_expand_volume(&request).await {
        let text = format!(
            "NodeExpandVolume.NodeExpandVolume failed for volume {:?} : {}",
            of.spec.name(),
            error.go_text()
        );
        of.shared.recorder.event(&about, EventType::Warning, "VolumeResizeFailed", text);
        return Err(failed(error.go_text()));
    }
    let claim = &persistent.claim;
    let (namespace, name) =
        (claim.metadata.namespace.as_deref().unwrap_or(""), claim.metadata.name.as_deref());
    let patch = Patch::Merge(status(claim, &size));
    let written = of.shared.client.patch_status::<PersistentVolumeClaim>(
        namespace,
        name.unwrap_or(""),
        &patch,
    );
    written.await.map_err(|e| failed(format!("update of the PVC's status failed: {e}")))?;
    let text = format!(
        "MountVolume.NodeExpandVolume succeeded for volume {:?} {}",
        of.spec.name(),
        of.shared.config.node_name
    );
    of.shared.recorder.event(&about, EventType::Normal, "FileSystemResizeSuccessful", text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_volume_that_has_grown_is_resized() {
        let volume = |size: &str| -> PersistentVolume {
            let spec = json!({"metadata": {}, "spec": {"capacity": {"storage": size}}});
            serde_json::from_value(spec).unwrap()
        };
        let claim: PersistentVolumeClaim =
            serde_json::from_value(json!({"metadata": {}, "status": {
            "capacity": {"storage": "1Gi"}, "conditions": [
                {"type": "FileSystemResizePending", "status": "True"},
                {"type": "ModifyingVolume", "status": "True"}]}}))
            .unwrap();
        assert_eq!(wanted(&volume("1Gi"), &claim), None);
        assert_eq!(wanted(&volume("1024Mi"), &claim), None);
        assert_eq!(wanted(&volume("2Gi"), &claim).unwrap().1, 2 << 30);
        let after = status(&claim, &Quantity("2Gi".into()));
        assert_eq!(after["status"]["capacity"]["storage"], "2Gi");
        assert_eq!(after["status"]["conditions"].as_array().unwrap().len(), 1);
    }
}
