//! `trireme up`: from nothing to a Ready node with DNS, in network namespaces of its own.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use anyhow::{Context, Result};
use apiserver::{KubeletTls, NodeDialer};
use client::Tasks;
use kubelet::{Amount, Capacity, Thresholds};
use network::{EgressNat, Fabric, FabricConfig, NetNs, PinDir};
use tokio::net::{TcpListener, TcpStream};

use super::detach::{Session, detached};
use super::host_ports::Doors;
use super::local_storage::LOCAL_STORAGE;
use super::place::Place;
use super::progress::{Progress, say};
use super::start::{Ground, Running, USUAL_PORT, Upkeep, announce, remove_file, start};
use super::{ClusterPaths, NameArg, claim, egress, host_routes, pod_cidr, refuse_running};
use crate::doctor;
use crate::pki_files::PkiFiles;
use crate::roles::apiserver::interrupted;
use crate::roles::certificate_flags::kubelet_tls;
use crate::roles::kubelet::millis;
use crate::runtime_flags::RuntimeFlags;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) cluster: NameArg,
    #[command(flatten)]
    session: Session,
    /// Number of nodes, each in a network namespace of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) nodes: u32,
    /// Return once the cluster is ready, and leave it running.
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Whether pods reach the outside: `nat` adds a link and a masquerading rule to the host.
    #[arg(long, default_value = "none", value_parser = ["nat", "none"])]
    pub(crate) egress: String,
    /// Whether this host refuses to dial nodes, pods and Services, which it cannot reach:
    /// `unreachable` adds routes to the host; with `none` such packets take the default route.
    #[arg(long, default_value = "unreachable", value_parser = ["unreachable", "none"])]
    pub(crate) host_routes: String,
    /// What each node has: cpu=2,memory=4Gi; several nodes have equal parts of the machine when absent.
    #[arg(long, value_name = "CPU,MEMORY", value_parser = node_capacity)]
    pub(crate) node_capacity: Option<NodeCapacity>,
    /// Parts to leave out: `local-storage` (the nodes' disks for claims, and the class `local`).
    #[arg(long, value_delimiter = ',', value_name = "PARTS", value_parser = [LOCAL_STORAGE])]
    disable: Vec<String>,
    /// Port of the API server on the host's loopback; 6443, or a free one when that is taken.
    #[arg(long)]
    pub(crate) port: Option<u16>,
    #[command(flatten)]
    runtime: RuntimeFlags,
}

/// What each node has, in thousandths of a CPU and in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodeCapacity {
    cpu_millis: u64,
    memory_bytes: u64,
}

impl std::fmt::Display for NodeCapacity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cpu={}m,memory={}", self.cpu_millis, self.memory_bytes)
    }
}

fn node_capacity(text: &str) -> Result<NodeCapacity, String> {
    const FORM: &str = "expected cpu=<quantity>,memory=<quantity>";
    let (cpu, memory) = text.split_once(',').ok_or(FORM)?;
    let cpu = cpu.strip_prefix("cpu=").and_then(millis).filter(|n| *n > 0).ok_or(FORM)?;
    let memory = memory.strip_prefix("memory=").and_then(Amount::parse);
    match memory {
        Some(Amount::Bytes(bytes)) if bytes > 0 => {
            Ok(NodeCapacity { cpu_millis: cpu, memory_bytes: bytes })
        }
        _ => Err(FORM.to_owned()),
    }
}

/// One node has the whole machine, unless told otherwise; several share it.
fn capacity(args: &UpArgs, paths: &ClusterPaths) -> Option<Capacity> {
    if args.nodes == 1 && args.node_capacity.is_none() {
        return None;
    }
    let equal = Capacity::divided(args.nodes, &paths.root);
    Some(match args.node_capacity {
        None => equal,
        Some(NodeCapacity { cpu_millis, memory_bytes }) => {
            Capacity { cpu_millis, memory_bytes, ..equal }
        }
    })
}

/// Runs the cluster in the foreground, or in a process of its own.
pub(crate) fn up(args: UpArgs) -> Result<()> {
    let paths = ClusterPaths::new(&args.cluster.name)?;
    refuse_running(&paths)?;
    doctor::require()?;
    if args.detach {
        let mut again = vec!["up".to_owned(), "--egress".to_owned(), args.egress.clone()];
        again.extend(["--nodes".to_owned(), args.nodes.to_string()]);
        again.push(format!("--host-routes={}", args.host_routes));
        again.extend(args.node_capacity.map(|given| format!("--node-capacity={given}")));
        again.extend(args.disable.iter().map(|part| format!("--disable={part}")));
        again.extend(args.port.map(|port| format!("--port={port}")));
        again.extend(args.runtime.again());
        return detached(&again, &paths);
    }
    args.session.enter()?;
    let _lock = claim(&paths)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(args, paths))
}

async fn run(args: UpArgs, paths: ClusterPaths) -> Result<()> {
    let tasks = Tasks::new();
    let cluster = Cluster::start(&args, &paths, &tasks).await?;
    interrupted().await?;
    say(&format!("\nStopping; `trireme up --name {}` continues where this ends.", paths.name));
    cluster.stop(&tasks, &paths).await
}

struct Cluster {
    running: Running,
    fabric: Fabric,
    egress: Option<EgressNat>,
}

/// The API server's socket on the host's loopback.
async fn listen(args: &UpArgs) -> Result<TcpListener> {
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match args.port {
        Some(port) => listener::bind(at(port)).await.with_context(|| {
            format!(
                "listen on 127.0.0.1:{port}: choose another --port, or leave it out for a free one"
            )
        }),
        None => match TcpListener::bind(at(USUAL_PORT)).await {
            Ok(listener) => Ok(listener),
            Err(_) => TcpListener::bind(at(0)).await.context("listen on a free port of 127.0.0.1"),
        },
    }
}

impl Cluster {
    async fn start(args: &UpArgs, paths: &ClusterPaths, tasks: &Tasks) -> Result<Cluster> {
        let mut progress = Progress::new();
        say(&format!("Starting cluster {:?} with {} node(s)", paths.name, args.nodes));
        let pki = PkiFiles::open(&paths.root.join("pki"))?;
        progress.step("keys and certificates");

        let fabric = join_nodes(args, paths).await?;
        progress.step("node networks");
        let egress = (args.egress == "nat").then(|| egress::enable(paths, &fabric)).flatten();
        route_pods(&fabric)?;
        if args.host_routes == "unreachable" {
            host_routes::add(paths, &fabric.config().cidrs)?;
        }

        let ground = ground(args, paths, &fabric, &pki).await?;
        let running = start(ground, paths, &pki, tasks, &mut progress).await?;
        announce(paths, &progress);
        Ok(Cluster { running, fabric, egress })
    }

    /// Ends pods, networks and processes; data stays.
    async fn stop(self, tasks: &Tasks, paths: &ClusterPaths) -> Result<()> {
        self.running.stop(tasks, paths).await?;
        let (fabric, egress, folder) = (self.fabric, self.egress, paths.namespaces());
        let routes = paths.clone();
        tokio::task::spawn_blocking(move || -> Result<()> {
            egress.map(EgressNat::remove).transpose()?;
            host_routes::remove(&routes)?;
            fabric.remove()?;
            Ok(PinDir::open(folder)?.close()?)
        })
        .await??;
        remove_file(&paths.record())
    }
}

/// The API listens on the host's loopback and, for the pods, inside the first node.
async fn ground(
    args: &UpArgs,
    paths: &ClusterPaths,
    fabric: &Fabric,
    pki: &PkiFiles,
) -> Result<Ground> {
    let capacity = capacity(args, paths);
    let place = |uplink: &network::Uplink| Place {
        capacity,
        name: paths.node_name(uplink.index),
        ns: Some(uplink.ns.clone()),
        addresses: uplink.addresses.clone(),
        manifests: paths.node(uplink.index).join("manifests"),
    };
    let places: Vec<Place> = fabric.nodes().iter().map(place).collect();
    let first = places.first().context("a cluster has a node")?;
    let (address, ns) = (first.address()?, fabric.nodes()[0].ns.clone());
    let advertise = SocketAddr::new(address, USUAL_PORT);
    let outside = listen(args).await?;
    let server = format!("https://{}", outside.local_addr()?);
    let inside = network::netns::tcp_listen(Some(&ns), advertise)?;
    let doors = Doors::loopback(ns.clone(), address);
    Ok(Ground {
        legacy: true,
        listeners: vec![outside, inside],
        server,
        advertise,
        addresses: vec![Ipv4Addr::LOCALHOST.into(), address],
        dialer: Arc::new(InsideDialer { ns, tls: kubelet_tls(pki)? }),
        doors,
        places,
        upkeep: Upkeep { eviction: Thresholds::shared(), image_gc_high: 100 },
        local_storage: !args.disable.iter().any(|part| part == LOCAL_STORAGE),
        runtime: args.runtime.read()?,
    })
}

async fn join_nodes(args: &UpArgs, paths: &ClusterPaths) -> Result<Fabric> {
    let (folder, name, count) = (paths.namespaces(), paths.name.clone(), args.nodes);
    let joined = tokio::task::spawn_blocking(move || -> Result<_> {
        let mut fabric = Fabric::create(PinDir::open(folder)?, FabricConfig::new(name))?;
        for index in 0..count {
            fabric.add_node(index)?.ns.loopback_up()?;
        }
        Ok(fabric)
    });
    joined.await?.context("make the nodes' networks")
}

/// Each node learns the way to the pods of the others.
fn route_pods(fabric: &Fabric) -> Result<()> {
    for at in fabric.nodes() {
        let mut routes = Vec::new();
        for other in fabric.nodes().iter().filter(|other| other.index != at.index) {
            let via = other.addresses.first().copied().context("a node has no address")?;
            routes.push((pod_cidr(other.index).parse()?, via));
        }
        fabric.set_routes(at.index, &routes)?;
    }
    Ok(())
}

/// Reaches every node and pod from the first node's namespace.
struct InsideDialer {
    ns: NetNs,
    tls: KubeletTls,
}

impl NodeDialer for InsideDialer {
    fn dial(
        &self,
        to: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = std::io::Result<TcpStream>> + Send>> {
        let ns = self.ns.clone();
        Box::pin(async move { network::netns::tcp_connect(Some(&ns), to).await })
    }

    fn kubelet_tls(&self) -> KubeletTls {
        self.tls.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capacity_names_cpu_and_memory() {
        let read = node_capacity("cpu=1500m,memory=4Gi").unwrap();
        // A detached process is given it again.
        assert_eq!(node_capacity(&read.to_string()), Ok(read));
        let none = ["", "cpu=1", "cpu=0,memory=1Gi", "cpu=1,memory=10%", "memory=1Gi,cpu=1"];
        for bad in none {
            assert!(node_capacity(bad).is_err(), "{bad}");
        }
    }
}
