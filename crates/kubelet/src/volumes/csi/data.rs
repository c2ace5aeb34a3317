//! `vol_data.json`: what it takes to unmount a volume, kept beside it. Upstream's file, so that either kubelet
//! can take down what the other has set up.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::names;

const FILE: &str = "vol_data.json";
const FILE_MAX: u64 = 64 << 10;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Data {
    #[serde(rename = "specVolID", skip_serializing_if = "String::is_empty")]
    pub(super) spec_name: String,
    pub(super) volume_handle: String,
    pub(super) driver_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) node_name: String,
    #[serde(rename = "attachmentID", skip_serializing_if = "String::is_empty")]
    pub(super) attachment: String,
    /// `Persistent` or `Ephemeral`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) volume_lifecycle_mode: String,
    /// What another version wrote.
    #[serde(flatten)]
    pub(super) rest: BTreeMap<String, String>,
}

impl Data {
    pub(super) fn is_ephemeral(&self) -> bool {
        self.volume_lifecycle_mode == "Ephemeral"
    }

    /// The name that all uses of a persistent volume share.
    pub(super) fn unique(&self) -> Option<String> {
        let known = !self.is_ephemeral() && !self.driver_name.is_empty();
        known.then(|| format!("{}/{}^{}", super::NAME, self.driver_name, self.volume_handle))
    }

    /// Written, and on the disk, before a driver is called: whatever happens then can be undone.
    pub(super) fn save(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        let next = dir.join(format!(".{FILE}.new"));
        let mut file = fs::File::create(&next)?;
        file.write_all(&serde_json::to_vec(self).map_err(io::Error::other)?)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(next, dir.join(FILE))?;
        fs::File::open(dir)?.sync_all()
    }

    /// `None` when there is none.
    pub(super) fn load(dir: &Path) -> io::Result<Option<Data>> {
        let file = match fs::File::open(dir.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut text = Vec::new();
        file.take(FILE_MAX).read_to_end(&mut text)?;
        let data = serde_json::from_slice(&text);
        data.map(Some).map_err(|e| {
            io::Error::other(super::said(format!(
                "failed to parse volume data file [{}]: {e}",
                dir.join(FILE).display()
            )))
        })
    }
}

/// Takes away a volume's directory and what the kubelet has written beside it. A directory with content, or
/// one that is still mounted, is an error: it is never emptied.
pub(super) fn remove(mount: &Path) -> io::Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    gone(fs::remove_dir(mount)).map_err(|e| {
        let text = format!("failed to remove dir [{}]: {e}", mount.display());
        io::Error::new(e.kind(), super::said(text))
    })?;
    let Some(dir) = mount.parent() else { return Ok(()) };
    remove_file(dir)?;
    gone(fs::remove_dir(dir))
}

/// Takes away the file alone.
pub(super) fn remove_file(dir: &Path) -> io::Result<()> {
    for name in [format!(".{FILE}.new"), FILE.to_owned()] {
        match fs::remove_file(dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The names in a directory; none when it is not there.
pub(super) fn names_in(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    entries.map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect()
}

/// The data of all file systems of all pods. What cannot be read is left out.
pub(super) fn of_all_pods(root: &Path) -> Vec<Data> {
    let pods = root.join("pods");
    let mut found = Vec::new();
    for uid in names_in(&pods).unwrap_or_default() {
        let volumes = pods.join(uid).join("volumes").join(names::ESCAPED);
        for name in names_in(&volumes).unwrap_or_default() {
            found.extend(Data::load(&volumes.join(name)).ok().flatten());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_upstreams_and_is_kept_whole() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"attachmentID":"csi-1","driverName":"d","nodeName":"n","seLinuxMountContext":"x","specVolID":"pv","volumeHandle":"h","volumeLifecycleMode":"Persistent"}"#;
        fs::write(dir.path().join(FILE), text).unwrap();
        let data = Data::load(dir.path()).unwrap().unwrap();
        assert_eq!((data.spec_name.as_str(), data.attachment.as_str()), ("pv", "csi-1"));
        assert_eq!(data.unique().as_deref(), Some("kubernetes.io/csi/d^h"));
        data.save(dir.path()).unwrap();
        let again: BTreeMap<String, String> =
            serde_json::from_slice(&fs::read(dir.path().join(FILE)).unwrap()).unwrap();
        assert_eq!(again, serde_json::from_str::<BTreeMap<String, String>>(text).unwrap());
    }

    #[test]
    fn a_torn_file_is_an_error_and_a_directory_with_content_stays() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(
            Data::load(dir.path()).unwrap_err().to_string().contains("failed to parse volume data")
        );
        let mount = dir.path().join("mount");
        fs::create_dir(&mount).unwrap();
        fs::write(mount.join("precious"), "x").unwrap();
        assert!(
            remove(&mount)
                .unwrap_err()
                .to_string()
                .starts_with("kubernetes.io/csi: failed to remove")
        );
        assert!(mount.join("precious").exists() && dir.path().join(FILE).exists());
        fs::remove_file(mount.join("precious")).unwrap();
        remove(&mount).unwrap();
        assert!(!dir.path().exists());
    }
}
