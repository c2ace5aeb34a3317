//! Messages to a driver. Pure.

use std::collections::BTreeMap;

use csi::v1::{
    AccessMode, AccessType, BlockVolume, Mode, MountVolume, NodeRpcType, VolumeCapability,
};
use k8s_openapi::api::core::v1::Pod;

use super::drivers::Capabilities;
use super::object::GroupPolicy;
use crate::spec::{name_of, namespace_of, spec_of, uid_of};
use crate::volumes::spec::Spec;

/// The first access mode of the volume in CSI's words.
pub(super) fn access_mode(modes: &[String], capabilities: &Capabilities) -> Mode {
    let fine = capabilities.has(NodeRpcType::SingleNodeMultiWriter);
    match (modes.first().map_or("ReadWriteOnce", String::as_str), fine) {
        ("ReadWriteOnce", true) => Mode::SingleNodeMultiWriter,
        ("ReadWriteOncePod", true) => Mode::SingleNodeSingleWriter,
        ("ReadWriteOnce" | "ReadWriteOncePod", false) => Mode::SingleNodeWriter,
        ("ReadOnlyMany", _) => Mode::MultiNodeReaderOnly,
        ("ReadWriteMany", _) => Mode::MultiNodeMultiWriter,
        _ => Mode::Unknown,
    }
}

/// A file system, with the group that the driver itself is to set, if it can.
pub(super) fn file_system(
    mode: Mode,
    fs_type: &str,
    options: &[String],
    group: Option<u32>,
) -> VolumeCapability {
    let mount = MountVolume {
        fs_type: fs_type.to_owned(),
        mount_flags: options.to_vec(),
        volume_mount_group: group.map(|g| g.to_string()).unwrap_or_default(),
    };
    VolumeCapability {
        access_type: Some(AccessType::Mount(mount)),
        access_mode: Some(AccessMode { mode: mode as i32 }),
    }
}

pub(super) fn device(mode: Mode) -> VolumeCapability {
    VolumeCapability {
        access_type: Some(AccessType::Block(BlockVolume {})),
        access_mode: Some(AccessMode { mode: mode as i32 }),
    }
}

/// What a driver with `podInfoOnMount` is told of the pod.
pub(super) fn pod_info(pod: &Pod, ephemeral: bool) -> BTreeMap<String, String> {
    let account = spec_of(pod).service_account_name.clone().unwrap_or_default();
    [
        ("csi.storage.k8s.io/pod.name", name_of(pod).to_owned()),
        ("csi.storage.k8s.io/pod.namespace", namespace_of(pod).to_owned()),
        ("csi.storage.k8s.io/pod.uid", uid_of(pod).to_owned()),
        ("csi.storage.k8s.io/serviceAccount.name", account),
        ("csi.storage.k8s.io/ephemeral", ephemeral.to_string()),
    ]
    .map(|(k, v)| (k.to_owned(), v))
    .into()
}

/// Whether the kubelet gives the volume to the pod's group.
pub(super) fn kubelet_sets_group(spec: &Spec, fs_type: &str, policy: GroupPolicy) -> bool {
    if spec.read_only() {
        return false;
    }
    match policy {
        GroupPolicy::None => false,
        GroupPolicy::File => true,
        GroupPolicy::ReadWriteOnceWithFsType if fs_type.is_empty() => false,
        GroupPolicy::ReadWriteOnceWithFsType => {
            let once =
                |mode: &String| matches!(mode.as_str(), "ReadWriteOnce" | "ReadWriteOncePod");
            spec.persistent.is_none() || spec.access_modes().iter().any(once)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::volumes::spec::Persistent;

    fn spec(modes: &[&str], read_only: bool) -> Spec {
        let pv = json!({"metadata": {"name": "pv"}, "spec": {"accessModes": modes}});
        let persistent = Persistent {
            volume: Arc::new(serde_json::from_value(pv).unwrap()),
            claim: Arc::default(),
            read_only,
        };
        let volume = serde_json::from_value(json!({"name": "v"})).unwrap();
        Spec { volume, persistent: Some(persistent) }
    }

    #[test]
    fn the_group_is_set_where_the_policy_says_so() {
        let by = GroupPolicy::ReadWriteOnceWithFsType;
        let sets = |spec: &Spec, fs, policy| kubelet_sets_group(spec, fs, policy);
        assert!(sets(&spec(&["ReadWriteOnce"], false), "ext4", by));
        assert!(!sets(&spec(&["ReadWriteOnce"], false), "", by), "no file system type");
        assert!(!sets(&spec(&["ReadWriteMany"], false), "ext4", by));
        assert!(!sets(&spec(&["ReadWriteOnce"], true), "ext4", GroupPolicy::File), "read-only");
        assert!(sets(&spec(&["ReadWriteMany"], false), "", GroupPolicy::File));
        assert!(!sets(&spec(&["ReadWriteOnce"], false), "ext4", GroupPolicy::None));
    }

    #[test]
    fn access_modes_are_those_that_a_driver_knows() {
        let of = |mode: &str| access_mode(&[mode.to_owned()], &Capabilities::default());
        assert_eq!(of("ReadWriteOnce"), Mode::SingleNodeWriter);
        assert_eq!(of("ReadWriteOncePod"), Mode::SingleNodeWriter);
        assert_eq!(of("ReadOnlyMany"), Mode::MultiNodeReaderOnly);
        assert_eq!(of("ReadWriteMany"), Mode::MultiNodeMultiWriter);
        assert_eq!(access_mode(&[], &Capabilities::default()), Mode::SingleNodeWriter);
    }
}
