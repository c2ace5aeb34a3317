//! Where a cluster keeps its files.

use std::path::PathBuf;

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
        Ok(ClusterPaths { name: name.to_owned(), root: parent.join(name) })
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
