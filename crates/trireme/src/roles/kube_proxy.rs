//! `trireme kube-proxy`: the service proxy on the host's own network.
//!
//! Cluster DNS is a workload or another process's business.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail};
use client::{Informers, Tasks};
use k8s_openapi::api::core::v1::Node;
use network::ipnet::IpNet;
use proxy::ProxyConfig;
use tokio::sync::mpsc;

use super::component::{Connection, KubeconfigArg, block_on, hostname};
use super::health::HealthPort;
use crate::cluster::services;

/// The label that says where a node stands.
const ZONE: &str = "topology.kubernetes.io/zone";

/// Flags of upstream that this proxy knows.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    connection: KubeconfigArg,
    /// The Node this proxy works for; this machine's host name when absent.
    #[arg(long)]
    hostname_override: Option<String>,
    /// Ranges of all pods: connections from elsewhere to a Service are masqueraded.
    #[arg(long, value_delimiter = ',', required = true, value_name = "CIDRS")]
    cluster_cidr: Vec<IpNet>,
    /// Only nftables.
    #[arg(long, default_value = "nftables")]
    proxy_mode: String,
    /// Node ports are offered on the node's addresses within these ranges; on all when absent.
    #[arg(long, value_delimiter = ',', value_name = "CIDRS")]
    nodeport_addresses: Vec<IpNet>,
    /// Address and port of health, by HTTP; port 0 serves none.
    #[arg(long, default_value = "0.0.0.0:10256")]
    healthz_bind_address: SocketAddr,
    /// Address and port of metrics, by HTTP; port 0 serves none.
    #[arg(long, default_value = "127.0.0.1:10249")]
    metrics_bind_address: SocketAddr,
}

/// Runs until interrupted; the rules stay, so that Services outlive a restart of the proxy.
pub(crate) fn run(args: Args) -> Result<()> {
    if args.proxy_mode != "nftables" {
        bail!("--proxy-mode {}: this proxy has nftables only", args.proxy_mode);
    }
    let connection = Connection::open(&args.connection.kubeconfig)?;
    block_on(async move |tasks| serve(args, &connection, &tasks).await)
}

async fn serve(args: Args, connection: &Connection, tasks: &Tasks) -> Result<()> {
    let (healthz, metrics) = (args.healthz_bind_address, args.metrics_bind_address);
    let health =
        HealthPort::plain(healthz, ("kube-proxy", "--healthz-bind-address"), [true, false]).await?;
    // Upstream tells its health there, too.
    let metrics =
        HealthPort::plain(metrics, ("kube-proxy", "--metrics-bind-address"), [true, true]).await?;
    metrics.into_iter().for_each(|port| port.serve(tasks));
    let informers = Informers::new(connection.client(tasks), tasks.clone());
    let name = args.hostname_override.clone().unwrap_or_else(hostname);
    eprintln!("waiting for the addresses of node {name}");
    let node = addressed_node(&informers, &name).await?;
    let config = config(&args, name, &node);
    services::start_proxy(config, &informers, tasks).await?;
    // Healthy means that this node forwards: load balancers outside ask for that.
    health.into_iter().for_each(|port| port.serve(tasks));
    eprintln!("services are in the kernel");
    Ok(())
}

/// Waits until the node is registered with an address.
async fn addressed_node(informers: &Informers, name: &str) -> Result<Node> {
    let (sender, mut found) = mpsc::unbounded_channel();
    let wanted = name.to_owned();
    informers.of::<Node>().on_change(move |change| {
        let node = change.object();
        if node.metadata.name.as_deref() == Some(&wanted) && !addresses(node).is_empty() {
            // Only the first one is waited for.
            sender.send(node.as_ref().clone()).unwrap_or_default();
        }
    });
    found.recv().await.context("the informer of nodes ended")
}

fn addresses(node: &Node) -> Vec<IpAddr> {
    let all = node.status.as_ref().and_then(|status| status.addresses.as_ref());
    let internal = all.into_iter().flatten().filter(|address| address.type_ == "InternalIP");
    internal.filter_map(|address| address.address.parse().ok()).collect()
}

fn config(args: &Args, node_name: String, node: &Node) -> ProxyConfig {
    let ranges = &args.nodeport_addresses;
    let offered = |ip: &IpAddr| ranges.is_empty() || ranges.iter().any(|range| range.contains(ip));
    ProxyConfig {
        table: None,
        node_name,
        node_ips: addresses(node).into_iter().filter(offered).collect(),
        zone: node.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE)).cloned(),
        netns: None,
        // Unknown here: an address that no Service has is left to the host's routes.
        service_cidrs: Vec::new(),
        pod_cidrs: args.cluster_cidr.clone(),
        local_addresses: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn the_node_gives_addresses_and_zone() {
        let line =
            "x --kubeconfig k --cluster-cidr 10.1.0.0/16 --nodeport-addresses 192.168.0.0/16";
        let args = Line::parse_from(line.split(' ')).args;
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n", "labels": {ZONE: "z"}},
            "status": {"addresses": [
                {"type": "Hostname", "address": "n"},
                {"type": "InternalIP", "address": "192.168.0.1"},
                {"type": "InternalIP", "address": "fd00::1"},
            ]},
        }))
        .unwrap();
        assert_eq!(addresses(&node).len(), 2);
        let config = config(&args, "n".into(), &node);
        assert_eq!(config.node_ips, ["192.168.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(config.zone.as_deref(), Some("z"));
    }
}
