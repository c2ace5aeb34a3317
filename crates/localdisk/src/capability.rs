//! How a volume may be used: what of it this driver offers.

use csi::v1::*;
use grpc::server::Status;

use crate::errors::invalid;

/// The file system that volumes have.
pub(crate) const EXT4: &str = "ext4";

/// The access mode of a capability that has one which this driver knows.
pub(crate) fn mode(capability: &VolumeCapability) -> Mode {
    let mode = capability.access_mode.as_ref().map_or(0, |mode| mode.mode);
    Mode::try_from(mode).unwrap_or(Mode::Unknown)
}

pub(crate) fn is_block(capability: &VolumeCapability) -> bool {
    matches!(capability.access_type, Some(AccessType::Block(_)))
}

/// Why this driver has no volume with the capability.
pub(crate) fn unsupported(capability: &VolumeCapability) -> Option<String> {
    match mode(capability) {
        Mode::SingleNodeWriter
        | Mode::SingleNodeReaderOnly
        | Mode::SingleNodeSingleWriter
        | Mode::SingleNodeMultiWriter => {}
        Mode::Unknown => return Some("the access mode is missing or unknown".into()),
        Mode::MultiNodeReaderOnly | Mode::MultiNodeSingleWriter | Mode::MultiNodeMultiWriter => {
            let why =
                "access from several nodes is not supported: the volume is on one node's disk";
            return Some(why.into());
        }
    }
    match &capability.access_type {
        None => Some("the access type is missing".into()),
        Some(AccessType::Block(_)) => None,
        Some(AccessType::Mount(mount)) => match mount.fs_type.as_str() {
            "" | EXT4 => None,
            other => Some(format!(
                "file system type {other:?} is not supported: this driver makes {EXT4} itself and needs no tools"
            )),
        },
    }
}

/// Refuses what this driver does not offer.
pub(crate) fn check<'a>(
    capabilities: impl IntoIterator<Item = &'a VolumeCapability>,
) -> Result<(), Status> {
    let mut none = true;
    for capability in capabilities {
        none = false;
        if let Some(why) = unsupported(capability) {
            return Err(invalid(why));
        }
    }
    match none {
        true => Err(invalid("volume capability is missing in the request")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounted(fs_type: &str, mode: Mode) -> VolumeCapability {
        let mount = MountVolume { fs_type: fs_type.into(), ..Default::default() };
        let access_mode = Some(AccessMode { mode: mode as i32 });
        VolumeCapability { access_type: Some(AccessType::Mount(mount)), access_mode }
    }

    #[test]
    fn several_nodes_and_other_file_systems_are_refused_with_the_reason() {
        assert_eq!(unsupported(&mounted("", Mode::SingleNodeWriter)), None);
        assert_eq!(unsupported(&mounted("ext4", Mode::SingleNodeSingleWriter)), None);
        let why = unsupported(&mounted("xfs", Mode::SingleNodeWriter)).unwrap();
        assert!(why.starts_with("file system type \"xfs\" is not supported"), "{why}");
        for mode in [Mode::MultiNodeMultiWriter, Mode::MultiNodeReaderOnly, Mode::Unknown] {
            assert!(unsupported(&mounted("", mode)).is_some(), "{mode:?}");
        }
        let neither = VolumeCapability { access_type: None, ..mounted("", Mode::SingleNodeWriter) };
        assert!(unsupported(&neither).is_some());
        assert!(check(&[]).is_err(), "none at all");
    }
}
