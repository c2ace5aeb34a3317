//! Names and paths, as upstream has them: other programs, and upstream's kubelet, find the same.

use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};

use super::super::{DEVICES, pod_dir, volume_dir};

/// The plugin's name in paths of pods.
pub(super) const ESCAPED: &str = "kubernetes.io~csi";

fn sha256(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for byte in digest(&SHA256, text.as_bytes()).as_ref() {
        write!(out, "{byte:02x}").expect("a string takes every write");
    }
    out
}

/// The VolumeAttachment of a volume on a node.
pub(super) fn attachment(handle: &str, driver: &str, node: &str) -> String {
    format!("csi-{}", sha256(&format!("{handle}{driver}{node}")))
}

/// The handle of a volume that lives as long as its pod.
pub(super) fn ephemeral_handle(uid: &str, volume: &str) -> String {
    format!("csi-{}", sha256(&format!("{uid}{volume}")))
}

fn plugin_dir(root: &Path) -> PathBuf {
    root.join("plugins").join(super::NAME)
}

/// Where a driver stages a volume once for all pods of the node.
pub(super) fn staging(root: &Path, driver: &str, handle: &str) -> PathBuf {
    plugin_dir(root).join(driver).join(sha256(handle)).join("globalmount")
}

/// Where a driver publishes a volume for a pod.
pub(super) fn target(root: &Path, uid: &str, name: &str) -> PathBuf {
    volume_dir(root, uid, ESCAPED, name).join("mount")
}

/// Paths of a raw block volume.
pub(super) struct Block {
    pub(super) staging: PathBuf,
    /// The device as the pod's containers get it.
    pub(super) publish: PathBuf,
    /// Where `vol_data.json` is.
    pub(super) data: PathBuf,
    /// A link in the pod's directory to the device.
    pub(super) link: PathBuf,
}

pub(super) fn block(root: &Path, uid: &str, name: &str) -> Block {
    let devices = plugin_dir(root).join("volumeDevices");
    Block {
        staging: devices.join("staging").join(name),
        publish: devices.join("publish").join(name).join(uid),
        data: devices.join(name).join("data"),
        link: pod_dir(root, uid).join(DEVICES).join(ESCAPED).join(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_upstreams() {
        // As `printf hdn | sha256sum` has it.
        let hash = "9072ed11cc1acb5fa433a877ff339b6311d013f33bddd1d0092711a8ace5b16d";
        assert_eq!(attachment("h", "d", "n"), format!("csi-{hash}"));
        assert_eq!(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        let root = Path::new("/r");
        assert_eq!(
            staging(root, "d", ""),
            Path::new(
                "/r/plugins/kubernetes.io/csi/d/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855/globalmount"
            )
        );
        assert_eq!(
            target(root, "u", "pv"),
            Path::new("/r/pods/u/volumes/kubernetes.io~csi/pv/mount")
        );
        let block = block(root, "u", "pv");
        assert_eq!(
            block.publish,
            Path::new("/r/plugins/kubernetes.io/csi/volumeDevices/publish/pv/u")
        );
        assert_eq!(block.link, Path::new("/r/pods/u/volumeDevices/kubernetes.io~csi/pv"));
    }
}
