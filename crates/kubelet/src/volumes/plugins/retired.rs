//! Kinds of volumes that this node does not mount, with the CSI driver that takes their place.

use async_trait::async_trait;

use crate::volumes::plugin::{Failed, Ready, SetUp, VolumePlugin};
use crate::volumes::spec::Spec;

pub(crate) struct Retired;

/// The kind as it is written in a spec, and its driver.
fn replaced(spec: &Spec) -> Option<(&'static str, &'static str)> {
    macro_rules! of {
        ($from:expr) => {{
            let v = $from;
            [
                (v.aws_elastic_block_store.is_some(), "awsElasticBlockStore", "ebs.csi.aws.com"),
                (v.azure_disk.is_some(), "azureDisk", "disk.csi.azure.com"),
                (v.azure_file.is_some(), "azureFile", "file.csi.azure.com"),
                (v.cephfs.is_some(), "cephfs", "cephfs.csi.ceph.com"),
                (v.cinder.is_some(), "cinder", "cinder.csi.openstack.org"),
                (v.fc.is_some(), "fc", "one of the storage's vendor"),
                (v.flex_volume.is_some(), "flexVolume", "one of the volume's vendor"),
                (v.flocker.is_some(), "flocker", "none: Flocker is no longer made"),
                (v.gce_persistent_disk.is_some(), "gcePersistentDisk", "pd.csi.storage.gke.io"),
                (v.glusterfs.is_some(), "glusterfs", "org.gluster.glusterfs"),
                (v.iscsi.is_some(), "iscsi", "iscsi.csi.k8s.io"),
                (
                    v.photon_persistent_disk.is_some(),
                    "photonPersistentDisk",
                    "none: Photon Controller is no longer made",
                ),
                (v.portworx_volume.is_some(), "portworxVolume", "pxd.portworx.com"),
                (v.quobyte.is_some(), "quobyte", "csi.quobyte.com"),
                (v.rbd.is_some(), "rbd", "rbd.csi.ceph.com"),
                (v.scale_io.is_some(), "scaleIO", "csi-vxflexos.dellemc.com"),
                (v.storageos.is_some(), "storageos", "csi.storageos.com"),
                (v.vsphere_volume.is_some(), "vsphereVolume", "csi.vsphere.vmware.com"),
            ]
            .into_iter()
            .find(|(is, _, _)| *is)
            .map(|(_, kind, driver)| (kind, driver))
        }};
    }
    if spec.volume.git_repo.is_some() {
        return Some(("gitRepo", "none: clone in an init container into an emptyDir"));
    }
    let persistent = spec.source().and_then(|s| of!(s));
    persistent.or_else(|| of!(&spec.volume))
}

#[async_trait]
impl VolumePlugin for Retired {
    fn name(&self) -> &'static str {
        "retired"
    }

    fn supports(&self, spec: &Spec) -> bool {
        replaced(spec).is_some()
    }

    /// So that the answer is the one that helps, whatever the mode and the options.
    fn supports_block(&self) -> bool {
        true
    }

    fn supports_mount_options(&self) -> bool {
        true
    }

    async fn set_up(&self, of: &SetUp<'_>) -> Result<Ready, Failed> {
        let (kind, driver) = replaced(of.spec).unwrap_or_default();
        Err(format!("volumes of the kind {kind} are not mounted by this node; the CSI driver that replaces it: {driver}").into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_kind_that_is_gone_names_its_driver() {
        let spec =
            |volume| Spec { volume: serde_json::from_value(volume).unwrap(), persistent: None };
        let of = |volume| replaced(&spec(volume));
        let iscsi = json!({"name": "v", "iscsi": {"iqn": "i", "lun": 0, "targetPortal": "t"}});
        assert_eq!(of(iscsi), Some(("iscsi", "iscsi.csi.k8s.io")));
        let rbd = json!({"name": "v", "rbd": {"image": "i", "monitors": []}});
        assert_eq!(of(rbd), Some(("rbd", "rbd.csi.ceph.com")));
        assert_eq!(of(json!({"name": "v", "emptyDir": {}})), None);
    }
}
