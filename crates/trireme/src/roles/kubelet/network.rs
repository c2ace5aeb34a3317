//! The pod network of a kubelet or a runtime that runs alone: made when its range is known.
//!
//! The range is a flag, or (a kubelet's) what the control plane wrote into the Node, which does not exist before
//! the agent has registered it: so the network is made for the first pod, and asked for again with
//! every pod until then (the agent retries sandboxes). Host ports have a proxy of their own: that of services,
//! if there is one, is another process.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ::network::ipnet::IpNet;
use ::network::{PodNetwork, PodNetworkConfig};
use ::runtime::{NetworkError, SandboxNet, SandboxNetwork};
use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use client::{Client, Tasks};
use k8s_openapi::api::core::v1::Node;
use proxy::HostPort;
use tokio::sync::{OnceCell, mpsc};

use crate::cluster::services::{self, Message};

/// Where the range of pods is from.
pub(crate) enum Ranges {
    Given(Vec<IpNet>),
    /// What the control plane gives this Node.
    OfNode {
        client: Client,
        name: String,
    },
}

/// Makes the pod network at its first use.
pub(crate) struct LateNetwork {
    ranges: Ranges,
    ipam_path: PathBuf,
    tasks: Tasks,
    made: OnceCell<Made>,
    /// Host ports of pods that run already, until there is a proxy for them.
    early: Mutex<Vec<HostPort>>,
}

/// The network, and the proxy of its host ports.
struct Made {
    network: Arc<PodNetwork>,
    host_ports: mpsc::UnboundedSender<Message>,
}

impl LateNetwork {
    /// Remembers in the file which addresses are taken.
    pub(crate) fn new(ranges: Ranges, ipam_path: PathBuf, tasks: &Tasks) -> LateNetwork {
        let (made, early) = (OnceCell::new(), Mutex::default());
        LateNetwork { ranges, ipam_path, tasks: tasks.clone(), made, early }
    }

    async fn made(&self) -> Result<&Made> {
        self.made.get_or_try_init(|| self.make()).await
    }

    async fn make(&self) -> Result<Made> {
        let pod_cidrs = match &self.ranges {
            Ranges::OfNode { client, name } => pod_cidrs(&client.get::<Node>("", name).await?)?,
            Ranges::Given(given) => given.clone(),
        };
        let config = PodNetworkConfig {
            node_ns: None,
            pod_cidrs: pod_cidrs.clone(),
            // Service addresses take the host's own routes: their range is not known here.
            service_cidrs: Vec::new(),
            local_addresses: Vec::new(),
            ipam_path: self.ipam_path.clone(),
            bridge: ::network::pod::DEFAULT_BRIDGE.to_owned(),
            mtu: None,
        };
        let made = tokio::task::spawn_blocking(move || PodNetwork::new(config)).await?;
        let network = Arc::new(made.context("set up the pod network")?);
        let host_ports = services::start_host_ports(pod_cidrs, &self.tasks).await?;
        let early = std::mem::take(&mut *self.early.lock().unwrap_or_else(PoisonError::into_inner));
        host_ports.send(Message::HostPorts(early))?;
        Ok(Made { network, host_ports })
    }
}

/// The ranges that the control plane gave a node.
fn pod_cidrs(node: &Node) -> Result<Vec<IpNet>> {
    let given = node.spec.as_ref().and_then(|spec| spec.pod_cidrs.clone()).unwrap_or_default();
    if given.is_empty() {
        bail!(
            "the node has no podCIDR yet: give --pod-cidr, or kube-controller-manager a --cluster-cidr"
        );
    }
    given.iter().map(|text| text.parse().with_context(|| format!("podCIDR {text}"))).collect()
}

#[async_trait]
impl SandboxNetwork for LateNetwork {
    async fn attach(&self, sandbox: &SandboxNet) -> Result<Vec<IpAddr>, NetworkError> {
        let made = self.made().await?;
        let (network, id, netns) =
            (made.network.clone(), sandbox.id.clone(), sandbox.netns.clone());
        let attached = tokio::task::spawn_blocking(move || network.attach(&id, &netns)).await??;
        let ports = services::host_ports(sandbox, &attached.addresses);
        if !ports.is_empty() {
            made.host_ports.send(Message::HostPorts(ports))?;
        }
        Ok(attached.addresses)
    }

    async fn resume(&self, sandboxes: Vec<(SandboxNet, Vec<IpAddr>)>) -> Result<(), NetworkError> {
        let ports = sandboxes.iter().flat_map(|(sandbox, ips)| services::host_ports(sandbox, ips));
        *self.early.lock().unwrap_or_else(PoisonError::into_inner) = ports.collect();
        // Without a range yet they come with the network, which the next pod makes.
        self.made().await.map(drop).map_err(Into::into)
    }

    async fn detach(&self, sandbox: &SandboxNet) -> Result<(), NetworkError> {
        // No address was ever given out: nothing is connected, and removal must not wait for a range.
        if !self.made.initialized() && !self.ipam_path.exists() {
            return Ok(());
        }
        let made = self.made().await?;
        let ids: Vec<String> =
            services::host_ports(sandbox, &[]).into_iter().map(|port| port.id).collect();
        if !ids.is_empty() {
            made.host_ports.send(Message::HostPortsGone(ids))?;
        }
        let (network, id) = (made.network.clone(), sandbox.id.clone());
        Ok(tokio::task::spawn_blocking(move || network.detach(&id)).await??)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::pod_cidrs;

    #[test]
    fn a_node_without_a_range_says_who_gives_one() {
        let node = |spec| serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
        let given = pod_cidrs(&node(json!({"podCIDRs": ["10.1.0.0/24", "fd00::/64"]}))).unwrap();
        assert_eq!(given.len(), 2);
        assert!(pod_cidrs(&node(json!({}))).unwrap_err().to_string().contains("--cluster-cidr"));
    }
}
