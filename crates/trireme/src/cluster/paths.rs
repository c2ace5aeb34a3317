//! Where a cluster keeps its files.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::lock::Holder;

/// Default parent of all clusters' folders.
const ROOT: &str = "/var/lib/trireme/clusters";
/// Names become parts of unix socket paths, which end at 108 bytes.
const NAME_MAX: usize = 24;

/// One cluster's folder.
#[derive(Debug, Clone)]
pub(crate) struct ClusterPaths {
    pub(crate) name: String,
    pub(crate) root: PathBuf,
    /// Name of its cgroup below `/trireme`: clusters of one name in different places have one each.
    pub(crate) cgroup: String,
}

/// What is written down of a running cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) pid: u32,
    pub(crate) server: String,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) nodes: Vec<String>,
}

impl ClusterPaths {
    pub(crate) fn new(name: &str) -> Result<ClusterPaths> {
        let faults = api::names::dns_label(name);
        if !faults.is_empty() || name.len() > NAME_MAX {
            bail!("--name {name:?}: use at most {NAME_MAX} lower case letters, digits and dashes");
        }
        let parent =
            std::env::var_os("TRIREME_ROOT").map_or_else(|| PathBuf::from(ROOT), PathBuf::from);
        let cgroup = cgroup(name, &parent);
        Ok(ClusterPaths { name: name.to_owned(), root: parent.join(name), cgroup })
    }

    pub(crate) fn record(&self) -> PathBuf {
        self.root.join("cluster.json")
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// Is there while the cluster has something in the host's own network.
    pub(crate) fn host_mark(&self) -> PathBuf {
        self.root.join("host-network")
    }

    /// Names the ranges that the host's routes refuse, while they do.
    pub(crate) fn routes_mark(&self) -> PathBuf {
        self.root.join("host-routes")
    }

    pub(crate) fn control_socket(&self) -> PathBuf {
        self.root.join("control.sock")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("trireme.log")
    }

    /// Pins of network namespaces.
    pub(crate) fn namespaces(&self) -> PathBuf {
        self.root.join("netns")
    }

    pub(crate) fn node(&self, index: u32) -> PathBuf {
        self.root.join(format!("n{index}"))
    }

    pub(crate) fn node_name(&self, index: u32) -> String {
        format!("{}-{}", self.name, index + 1)
    }

    /// What the last `up` wrote, if the file is there and readable.
    pub(crate) fn read_record(&self) -> Option<Record> {
        serde_json::from_slice(&std::fs::read(self.record()).ok()?).ok()
    }

    /// The process whose cluster this is.
    pub(crate) fn holder(&self) -> Result<Option<Holder>> {
        Holder::find(&self.root)
    }
}

/// The cluster's name, and where it is unless that is the usual place.
fn cgroup(name: &str, parent: &Path) -> String {
    let parent = std::path::absolute(parent).unwrap_or_else(|_| parent.to_owned());
    let parent: PathBuf = parent.components().collect();
    if parent == Path::new(ROOT) {
        return name.to_owned();
    }
    // FNV-1a: the name must be the same in every process and build.
    let hash = parent.as_os_str().as_encoded_bytes().iter();
    let hash = hash
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    format!("{name}-{hash:08x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_of_one_name_in_different_places_share_no_cgroup() {
        assert_eq!(cgroup("a", Path::new("/var/lib/trireme/clusters/")), "a");
        let [one, two] = ["/tmp/one", "/tmp/two"].map(|parent| cgroup("a", Path::new(parent)));
        assert_ne!(one, two);
        assert_eq!(one, cgroup("a", Path::new("/tmp/one/")));
        assert!(one.starts_with("a-") && one.len() == 10, "{one}");
    }
}
