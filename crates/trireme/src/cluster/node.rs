//! One node: its network, runtime, kubelet, proxy and DNS, all working in its own namespace.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use anyhow::{Context, Result};
use async_trait::async_trait;
use client::{Informers, Patch, Tasks};
use k8s_openapi::api::core::v1::Node as NodeObject;
use kubelet::{Amount, Capacity, Deps, Kubelet, KubeletConfig, Signal};
use network::{NetNs, PodNetwork, PodNetworkConfig};
use pki::{CertSpec, KeyPairPem};
use proxy::ProxyConfig;
use runtime::{Config as RuntimeConfig, Embedded, NetworkError, SandboxNet, SandboxNetwork};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::local_storage;
use super::place::Place;
use super::protect;
use super::services::{self, Message};
use super::start::Upkeep;
use super::{CLUSTER_DOMAIN, ClusterPaths, POD_CIDR, SERVICE_CIDR, dns_address, pod_cidr};
use crate::control_plane::ControlPlane;
use crate::pki_files::PkiFiles;
use crate::roles::kubelet::CGROUPS;
use crate::runtime_flags::RuntimeSettings;

const KUBELET_PORT: u16 = 10250;

/// What all nodes of a cluster share.
pub(crate) struct Shared<'a> {
    pub(crate) paths: &'a ClusterPaths,
    pub(crate) plane: &'a ControlPlane,
    pub(crate) pki: &'a PkiFiles,
    pub(crate) informers: &'a Informers,
    pub(crate) index: Arc<RwLock<dns::Index>>,
    pub(crate) upstreams: Vec<SocketAddr>,
    pub(crate) upkeep: Upkeep,
    pub(crate) local_storage: bool,
    pub(crate) runtime: RuntimeSettings,
    pub(crate) tasks: &'a Tasks,
}

/// A running node. Dropping it stops answering DNS; the rest ends with the tasks.
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) runtime: Arc<Embedded>,
    _dns: dns::Server,
}

/// The runtime's configuration for a node, also used to clean up after it.
pub(crate) fn runtime_config(
    paths: &ClusterPaths,
    index: u32,
    node_netns: Option<PathBuf>,
) -> RuntimeConfig {
    let folder = paths.node(index);
    let mut config = RuntimeConfig::new(folder.join("runtime"), folder.join("run"));
    config.node_netns = node_netns;
    config.cgroup_parent = format!("/trireme/{}/{index}", paths.cgroup);
    config
}

/// Brings a node up at its place.
pub(crate) async fn start(shared: &Shared<'_>, index: u32, place: Place) -> Result<Node> {
    let folder = shared.paths.node(index);
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let network = pod_network(index, &place, folder.join("ipam.json")).await?;
    let proxy =
        services::start_proxy(proxy_config(&place)?, shared.informers, shared.tasks).await?;
    let adapter = Arc::new(Sandboxes { network: Arc::new(network), proxy });
    let mut config =
        runtime_config(shared.paths, index, place.ns.as_ref().map(|ns| ns.path().to_owned()));
    shared.runtime.apply(&mut config);
    let runtime =
        Arc::new(Embedded::open(config, adapter).await.context("open the container runtime")?);
    let dns = start_dns(shared, &place)?;
    if shared.local_storage {
        let (kubelet, informers) = (folder.join("kubelet"), shared.informers);
        local_storage::start(&folder, &kubelet, &place.name, informers, shared.tasks)
            .context("start the node's storage (--disable=local-storage leaves it out)")?;
    }
    start_kubelet(shared, index, &place, runtime.clone()).await?;
    assign_cidr(shared, &place.name, index).await?;
    Ok(Node { place, runtime, _dns: dns })
}

fn cidrs(text: &str) -> Result<Vec<ipnet::IpNet>> {
    Ok(vec![text.parse().with_context(|| format!("range {text}"))?])
}

async fn pod_network(index: u32, place: &Place, ipam_path: PathBuf) -> Result<PodNetwork> {
    let config = PodNetworkConfig {
        node_ns: place.ns.clone(),
        pod_cidrs: cidrs(&pod_cidr(index))?,
        service_cidrs: cidrs(SERVICE_CIDR)?,
        local_addresses: vec![dns_address()],
        ipam_path,
        bridge: network::pod::DEFAULT_BRIDGE.to_owned(),
        mtu: None,
    };
    tokio::task::spawn_blocking(move || PodNetwork::new(config))
        .await?
        .context("set up the pod network")
}

fn proxy_config(place: &Place) -> Result<ProxyConfig> {
    Ok(ProxyConfig {
        table: None,
        node_name: place.name.clone(),
        node_ips: place.addresses.clone(),
        zone: None,
        netns: place.ns.clone(),
        service_cidrs: cidrs(SERVICE_CIDR)?,
        pod_cidrs: cidrs(POD_CIDR)?,
        local_addresses: vec![dns_address()],
    })
}

fn start_dns(shared: &Shared<'_>, place: &Place) -> Result<dns::Server> {
    let forward = dns::ForwardConfig { upstreams: shared.upstreams.clone() };
    let config = dns::ServerConfig { zone: CLUSTER_DOMAIN.to_owned(), forward };
    let server = dns::Server::new(config, shared.index.clone()).context("start DNS")?;
    let at = SocketAddr::new(dns_address(), 53);
    let ns = place.ns.as_ref();
    server.serve_udp(
        network::netns::udp_bind(ns, at).with_context(|| format!("listen on {at}/udp"))?,
    );
    server.serve_tcp(
        network::netns::tcp_listen(ns, at).with_context(|| format!("listen on {at}/tcp"))?,
    );
    Ok(server)
}

async fn start_kubelet(
    shared: &Shared<'_>,
    index: u32,
    place: &Place,
    runtime: Arc<Embedded>,
) -> Result<()> {
    let name = &place.name;
    let folder = shared.paths.node(index);
    let mut config = KubeletConfig::new(name);
    config.root_dir = folder.join("kubelet");
    config.log_dir = folder.join("pods");
    // The host's own logs are not the node's.
    config.node_log_dir = folder.join("pods");
    config.node_ips = place.addresses.clone();
    config.cluster_dns = vec![dns_address()];
    config.cluster_domain = CLUSTER_DOMAIN.to_owned();
    config.port = KUBELET_PORT;
    config.static_pods.path = Some(place.manifests.clone());
    config.eviction = shared.upkeep.eviction.clone().into();
    config.image_gc_high_percent = shared.upkeep.image_gc_high;
    // Beside the eviction threshold, which is kept back, too.
    config.reserved_memory_bytes += protect::reserved_memory();
    if let Some(part) = place.capacity {
        share(&mut config, part);
    }
    config.cgroup_root = format!("/trireme/{}/{index}/kubepods", shared.paths.cgroup);
    config.cgroups.mount = Some(CGROUPS.into());
    let user = format!("system:node:{name}");
    let client = shared.plane.client(&user, &["system:nodes"], "kubelet");
    let deps = Deps {
        authorizer: Arc::new(kubelet::ApiReviews::new(client.clone(), name)),
        client,
        images: runtime.clone(),
        runtime,
        dialer: Arc::new(Inside(place.ns.clone())),
        services: Some(shared.informers.of()),
    };
    let agent = Kubelet::new(config, deps, shared.tasks).map_err(anyhow::Error::msg)?;
    let agent = Arc::new(agent);
    let at = SocketAddr::new(place.address()?, KUBELET_PORT);
    let listener = network::netns::tcp_listen(place.ns.as_ref(), at)
        .with_context(|| format!("listen on {at}: is another kubelet running here?"))?;
    let tls = kubelet_tls(shared.pki, name, &place.addresses)?;
    let server = agent.clone();
    shared.tasks.spawn("kubelet server", async move { server.serve(listener, tls).await });
    shared.tasks.spawn("kubelet", async move { agent.run().await });
    Ok(())
}

/// A node that has a part of the machine keeps back a part of it, and is short when little of it is left.
fn share(config: &mut KubeletConfig, part: Capacity) {
    config.capacity = Some(part);
    config.reserved_memory_bytes = config.reserved_memory_bytes.min(part.memory_bytes / 10);
    let least = Amount::Bytes((100_u64 << 20).min(part.memory_bytes / 20));
    config.eviction.hard.set(Signal::Memory, least);
}

fn kubelet_tls(
    pki: &PkiFiles,
    name: &str,
    addresses: &[IpAddr],
) -> Result<Arc<rustls::ServerConfig>> {
    let pair =
        pki.ca.issue(&CertSpec::server(&format!("system:node:{name}"), &[name], addresses))?;
    server_tls(pki.ca_pem(), &pair)
}

/// TLS of the node API, for clients of these authorities.
pub(crate) fn server_tls(
    client_ca_pem: &str,
    pair: &KeyPairPem,
) -> Result<Arc<rustls::ServerConfig>> {
    let (chain, key) = server_identity(pair)?;
    Ok(kubelet::tls_config(&certificates(client_ca_pem)?, chain, key)?)
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    Ok(CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>()?)
}

/// A certificate chain and its key, parsed.
pub(crate) fn server_identity(
    pair: &KeyPairPem,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes())?;
    Ok((certificates(&pair.cert_pem)?, key))
}

/// A label that no kubelet may give its own node.
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// Waits for the node to register, and writes its pod range and its role into it.
async fn assign_cidr(shared: &Shared<'_>, name: &str, index: u32) -> Result<()> {
    let nodes = shared.informers.of::<NodeObject>();
    let (sender, mut registered) = mpsc::unbounded_channel();
    let wanted = name.to_owned();
    nodes.on_change(move |change| {
        if change.object().metadata.name.as_deref() == Some(&wanted) {
            sender.send(()).unwrap_or_default();
        }
    });
    registered.recv().await.context("the node's registration")?;
    let node = nodes.get("", name);
    let mut patch = serde_json::json!({});
    let known = node.is_some_and(|n| n.spec.as_ref().is_some_and(|s| s.pod_cidr.is_some()));
    if !known {
        let cidr = pod_cidr(index);
        patch["spec"] = serde_json::json!({"podCIDR": cidr, "podCIDRs": [cidr]});
    }
    if index == 0 {
        patch["metadata"]["labels"][CONTROL_PLANE] = "".into();
    }
    let client = shared.informers.client();
    client.patch::<NodeObject>("", name, &Patch::Merge(patch)).await?;
    Ok(())
}

/// Opens connections inside a node's network.
pub(crate) struct Inside(pub(crate) Option<NetNs>);

#[async_trait]
impl kubelet::Dialer for Inside {
    async fn tcp(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        network::netns::tcp_connect(self.0.as_ref(), address).await
    }
}

/// Connects sandboxes to the pod network, and their host ports to the proxy.
struct Sandboxes {
    network: Arc<PodNetwork>,
    proxy: mpsc::UnboundedSender<Message>,
}

#[async_trait]
impl SandboxNetwork for Sandboxes {
    async fn attach(&self, sandbox: &SandboxNet) -> Result<Vec<IpAddr>, NetworkError> {
        let (network, id, netns) =
            (self.network.clone(), sandbox.id.clone(), sandbox.netns.clone());
        let attached = tokio::task::spawn_blocking(move || network.attach(&id, &netns)).await??;
        let ports = services::host_ports(sandbox, &attached.addresses);
        if !ports.is_empty() {
            self.proxy.send(Message::HostPorts(ports))?;
        }
        Ok(attached.addresses)
    }

    async fn resume(&self, sandboxes: Vec<(SandboxNet, Vec<IpAddr>)>) -> Result<(), NetworkError> {
        let ports = sandboxes.iter().flat_map(|(sandbox, ips)| services::host_ports(sandbox, ips));
        Ok(self.proxy.send(Message::HostPorts(ports.collect()))?)
    }

    async fn detach(&self, sandbox: &SandboxNet) -> Result<(), NetworkError> {
        let ids: Vec<String> =
            services::host_ports(sandbox, &[]).into_iter().map(|p| p.id).collect();
        if !ids.is_empty() {
            self.proxy.send(Message::HostPortsGone(ids))?;
        }
        let (network, id) = (self.network.clone(), sandbox.id.clone());
        Ok(tokio::task::spawn_blocking(move || network.detach(&id)).await??)
    }
}
