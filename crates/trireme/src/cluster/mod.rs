//! The one-command cluster: `up`, `server`, `down`, `status`, `reset`.
//!
//! With `up` every node is a network namespace of its own on a bridge in yet another one, so that nothing is
//! added to the host's network. The API server listens on the host's loopback and, for the pods,
//! inside the first node's namespace.

mod detach;
mod dns_service;
mod egress;
pub(crate) mod folder;
mod host_ports;
mod host_routes;
mod leftovers;
mod lifecycle;
mod local_storage;
mod lock;
pub(crate) mod node;
mod paths;
mod place;
mod progress;
mod protect;
mod rules;
mod server;
pub(crate) mod services;
mod start;
mod up;
mod wait;

pub(crate) use lifecycle::{down, kubeconfig_of, reset, status};
pub(crate) use paths::ClusterPaths;
pub(crate) use server::{ServerArgs, server};
pub(crate) use start::remove_file;
pub(crate) use up::{UpArgs, up};

use std::net::IpAddr;

use anyhow::Result;
use lock::ClusterLock;

/// Addresses of Services; the API's own is the first, DNS the tenth.
pub(crate) const SERVICE_CIDR: &str = "10.43.0.0/16";
/// Addresses of pods: a /24 of it for each node.
pub(crate) const POD_CIDR: &str = "10.42.0.0/16";
pub(crate) const CLUSTER_DOMAIN: &str = "cluster.local";

pub(crate) fn dns_address() -> IpAddr {
    IpAddr::from([10, 43, 0, 10])
}

/// The pods' range of a node.
pub(crate) fn pod_cidr(node: u32) -> String {
    format!("10.42.{node}.0/24")
}

/// Which cluster a command is about.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct NameArg {
    /// Name of the cluster.
    #[arg(
        long,
        default_value = "trireme",
        global = true,
        id = "cluster-name",
        value_name = "NAME"
    )]
    pub(crate) name: String,
}

/// Refuses to start a cluster that runs. [`claim`] decides; this spares a process its preparations.
fn refuse_running(paths: &ClusterPaths) -> Result<()> {
    match folder::exists(&paths.root)?.then(|| paths.holder()).transpose()?.flatten() {
        Some(holder) => Err(runs_already(paths, Some(holder.pid))),
        None => Ok(()),
    }
}

fn runs_already(paths: &ClusterPaths, pid: Option<u32>) -> anyhow::Error {
    let process = pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
    let name = &paths.name;
    anyhow::anyhow!(
        "cluster {name:?} is running already{process}; `trireme down --name {name}` ends it"
    )
}

/// Makes this process the cluster's: one process a cluster, in a folder that is root's alone.
fn claim(paths: &ClusterPaths) -> Result<ClusterLock> {
    // The parents, too, when they are made now.
    folder::make_private(&paths.root)?;
    let lock = match ClusterLock::take(&paths.root)? {
        Some(lock) => lock,
        // Its holder may be ending.
        None => match paths.holder()? {
            Some(holder) => return Err(runs_already(paths, Some(holder.pid))),
            None => ClusterLock::take(&paths.root)?.ok_or_else(|| runs_already(paths, None))?,
        },
    };
    protect::this_process(paths);
    Ok(lock)
}
