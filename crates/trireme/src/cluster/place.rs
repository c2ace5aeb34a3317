//! Where a node lives: in a namespace of `up`, or on the host's own network.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use kubelet::Capacity;
use network::NetNs;

/// A node's network, before anything runs there.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) name: String,
    /// None: the host's own network.
    pub(crate) ns: Option<NetNs>,
    pub(crate) addresses: Vec<IpAddr>,
    /// Its part of the machine; None: all of it.
    pub(crate) capacity: Option<Capacity>,
    /// Where its static pods' manifests are.
    pub(crate) manifests: PathBuf,
}

impl Place {
    /// The address that others know the node by.
    pub(crate) fn address(&self) -> Result<IpAddr> {
        let first = self.addresses.first().copied();
        first.with_context(|| format!("node {} has no address", self.name))
    }
}
