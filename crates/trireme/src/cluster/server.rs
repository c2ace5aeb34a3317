//! `trireme server`: the same cluster on the host's own network, of one node.
//!
//! It makes the host forward packets and adds a bridge, the pods' links, and nf_tables tables of its
//! own; all but the forwarding goes when the cluster goes down. Node ports are open on the host's
//! addresses, load balancers on all of them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use client::Tasks;
use kubelet::Thresholds;
use network::egress::{masquerade_pods, stop_masquerading_pods};
use network::netlink::route::Route;
use network::nft::Nft;
use proxy::{Proxy, ProxyConfig};

use super::detach::{Session, detached};
use super::host_ports::Doors;
use super::local_storage::LOCAL_STORAGE;
use super::place::Place;
use super::progress::{Progress, say};
use super::start::{Ground, USUAL_PORT, Upkeep, announce, remove_file, start};
use super::{ClusterPaths, NameArg, POD_CIDR, SERVICE_CIDR, claim, pod_cidr, refuse_running};
use crate::doctor;
use crate::pki_files::PkiFiles;
use crate::roles::apiserver::{PlainDialer, interrupted};
use crate::roles::component::{address_of_default_route, hostname};
use crate::runtime_flags::RuntimeFlags;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ServerArgs {
    #[command(flatten)]
    cluster: NameArg,
    #[command(flatten)]
    session: Session,
    /// Return once the cluster is ready, and leave it running.
    #[arg(short, long)]
    detach: bool,
    /// Port of the API server, on all addresses.
    #[arg(long, default_value_t = USUAL_PORT)]
    port: u16,
    /// This machine's address towards others; that of the default route when absent.
    #[arg(long)]
    node_ip: Option<IpAddr>,
    /// The Node's name; this machine's host name when absent.
    #[arg(long)]
    node_name: Option<String>,
    /// Pods end when less is available: memory.available<100Mi,nodefs.available<10%,… What is not
    /// named is not watched; upstream's defaults when absent.
    #[arg(long)]
    eviction_hard: Option<String>,
    /// Parts to leave out: `local-storage` (the nodes' disks for claims, and the class `local`).
    #[arg(long, value_delimiter = ',', value_name = "PARTS", value_parser = [LOCAL_STORAGE])]
    disable: Vec<String>,
    /// A folder of manifests of static pods, or one manifest.
    #[arg(long, value_name = "PATH", default_value = "/etc/kubernetes/manifests")]
    pod_manifest_path: PathBuf,
    #[command(flatten)]
    runtime: RuntimeFlags,
}

/// Runs the cluster in the foreground, or in a process of its own.
pub(crate) fn server(args: ServerArgs) -> Result<()> {
    let paths = ClusterPaths::new(&args.cluster.name)?;
    refuse_running(&paths)?;
    doctor::require()?;
    if args.detach {
        let mut again = vec!["server".to_owned(), format!("--port={}", args.port)];
        again.extend(args.eviction_hard.as_ref().map(|e| format!("--eviction-hard={e}")));
        again.push(format!("--pod-manifest-path={}", args.pod_manifest_path.display()));
        again.extend(args.disable.iter().map(|part| format!("--disable={part}")));
        again.extend(args.node_ip.map(|ip| format!("--node-ip={ip}")));
        again.extend(args.node_name.as_ref().map(|name| format!("--node-name={name}")));
        again.extend(args.runtime.again());
        return detached(&again, &paths);
    }
    args.session.enter()?;
    let _lock = claim(&paths)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(args, paths))
}

async fn run(args: ServerArgs, paths: ClusterPaths) -> Result<()> {
    let tasks = Tasks::new();
    let mut progress = Progress::new();
    say(&format!("Starting cluster {:?} on the host's own network", paths.name));
    let pki = PkiFiles::open(&paths.root.join("pki"))?;
    progress.step("keys and certificates");
    let ground = ground(&args, &pki).await?;
    open_host(&paths)?;
    let running = start(ground, &paths, &pki, &tasks, &mut progress).await?;
    announce(&paths, &progress);
    interrupted().await?;
    say(&format!("\nStopping; `trireme server --name {}` continues where this ends.", paths.name));
    running.stop(&tasks, &paths).await?;
    tokio::task::block_in_place(|| close_host(&paths))?;
    remove_file(&paths.record())
}

async fn ground(args: &ServerArgs, pki: &PkiFiles) -> Result<Ground> {
    let address = match args.node_ip {
        Some(given) => given,
        None => address_of_default_route().context("find this machine's address")?,
    };
    let place = Place {
        name: args.node_name.clone().unwrap_or_else(hostname),
        ns: None,
        addresses: vec![address],
        capacity: None,
        manifests: args.pod_manifest_path.clone(),
    };
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, args.port));
    let listener = listener::bind(any).await.with_context(|| {
        format!("listen on {any}: choose another --port, or stop what uses this one")
    })?;
    let port = listener.local_addr()?.port();
    let eviction = match &args.eviction_hard {
        Some(given) => given.parse().map_err(anyhow::Error::msg),
        None => Ok(Thresholds::default()),
    };
    Ok(Ground {
        legacy: false,
        upkeep: Upkeep { eviction: eviction.context("--eviction-hard")?, image_gc_high: 85 },
        local_storage: !args.disable.iter().any(|part| part == LOCAL_STORAGE),
        runtime: args.runtime.read()?,
        places: vec![place],
        listeners: vec![listener],
        server: format!("https://127.0.0.1:{port}"),
        advertise: SocketAddr::new(address, port),
        addresses: vec![Ipv4Addr::LOCALHOST.into(), address],
        dialer: Arc::new(PlainDialer::new(pki)?),
        doors: Doors::host(address),
    })
}

/// Pods leave the machine under its own address. A mark in the cluster's folder tells `down` that
/// the host's network is to be cleaned up.
fn open_host(paths: &ClusterPaths) -> Result<()> {
    std::fs::write(paths.host_mark(), b"").context("write into the cluster's folder")?;
    let cluster = [POD_CIDR.parse()?, SERVICE_CIDR.parse()?];
    masquerade_pods(None, &[pod_cidr(0).parse()?], &cluster).context("masquerade pods")?;
    for chain in Nft::open(None)?.dropping_forward_chains()? {
        say(&format!(
            "          the host's firewall drops forwarded packets (policy drop in {chain}): accept \
             those of link {} for pods to reach each other and the outside",
            network::pod::DEFAULT_BRIDGE
        ));
    }
    Ok(())
}

/// Takes away what the cluster added to the host's network. Idempotent.
pub(super) fn close_host(paths: &ClusterPaths) -> Result<()> {
    if !paths.host_mark().exists() {
        return Ok(());
    }
    Proxy::new(ProxyConfig::default())?.remove().context("remove the service rules")?;
    stop_masquerading_pods(None).context("remove the masquerading rule")?;
    let mut route = Route::open(None).context("open the host's network")?;
    route.delete_link(network::pod::DEFAULT_BRIDGE).context("remove the pods' bridge")?;
    remove_file(&paths.host_mark())
}
