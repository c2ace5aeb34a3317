//! A cluster's start, step by step, on whatever ground it stands: `up`'s namespaces or the host.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use apiserver::{NodeDialer, ServiceNetwork};
use client::{Informers, Tasks};
use kubelet::Thresholds;
use pki::Identity;
use tokio::net::TcpListener;

use super::detach::{READY_LINE, next_steps};
use super::host_ports::{self, Doors};
use super::node::{self, Node, Shared};
use super::paths::Record;
use super::place::Place;
use super::progress::{Progress, say};
use super::wait::{dns_answers, ready};
use super::{
    ClusterPaths, SERVICE_CIDR, dns_address, dns_service, local_storage, protect, services,
};
use crate::authentication::Authentication;
use crate::authorization::Authorization;
use crate::control_plane::{ControlPlane, Options};
use crate::loops::Loops;
use crate::pki_files::{PkiFiles, write_private};
use crate::runtime_flags::RuntimeSettings;

/// How long events are kept: upstream's default.
const EVENT_TTL: std::time::Duration = std::time::Duration::from_secs(3600);

/// How long requests under way may take when the cluster stops: its nodes stop with it, so what
/// waits for them would wait in vain.
const DRAIN_GRACE: std::time::Duration = std::time::Duration::from_secs(2);

/// Where clients expect an API server.
pub(super) const USUAL_PORT: u16 = 6443;

/// What a cluster is started on.
pub(super) struct Ground {
    /// Serve the versions that tutorials of the past use.
    pub(super) legacy: bool,
    pub(super) places: Vec<Place>,
    /// The API server's sockets.
    pub(super) listeners: Vec<TcpListener>,
    /// The API server as the kubeconfig names it.
    pub(super) server: String,
    /// The API server as pods reach it.
    pub(super) advertise: SocketAddr,
    /// Further addresses the API server's certificate is valid for.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) dialer: Arc<dyn NodeDialer>,
    pub(super) doors: Doors,
    pub(super) upkeep: Upkeep,
    /// Every node offers its disk to claims.
    pub(super) local_storage: bool,
    pub(super) runtime: RuntimeSettings,
}

/// When nodes begin to free room.
#[derive(Debug, Clone)]
pub(crate) struct Upkeep {
    /// Pods end when less is available.
    pub(crate) eviction: Thresholds,
    /// Unused images go when the disk is fuller than this, in percent.
    pub(crate) image_gc_high: u8,
}

/// A running cluster, but for the ground it stands on.
pub(super) struct Running {
    plane: ControlPlane,
    pub(super) nodes: Vec<Node>,
}

pub(super) async fn start(
    ground: Ground,
    paths: &ClusterPaths,
    pki: &PkiFiles,
    tasks: &Tasks,
    progress: &mut Progress,
) -> Result<Running> {
    let loops = Loops::new(tasks);
    let plane = control_plane(&ground, (paths, pki), &loops, tasks).await?;
    for listener in ground.listeners {
        plane.listen(listener);
    }
    progress.step("API server and store");

    write_kubeconfig(paths, pki, &ground.server)?;
    let informers = start_loops(&loops, &plane, pki, tasks).await?;
    progress.step("controllers and scheduler");

    dns_service::make(informers.client().clone(), tasks);
    if ground.local_storage {
        local_storage::make_objects(informers.client().clone(), tasks);
    }
    let index = services::start_index(&informers).await;
    let upstreams = upstreams(&ground.places);
    let shared = Shared {
        paths,
        plane: &plane,
        pki,
        informers: &informers,
        index,
        upstreams,
        upkeep: ground.upkeep,
        local_storage: ground.local_storage,
        runtime: ground.runtime,
        tasks,
    };
    let mut nodes = Vec::new();
    for (index, place) in (0..).zip(ground.places) {
        nodes.push(node::start(&shared, index, place).await?);
    }
    protect::limit_pods(paths, nodes.len());
    progress.step("container runtime, kubelet, service proxy, DNS");
    offer_demo(&nodes).await?;
    progress.step("demo image trireme.local/demo:v1, :v2");

    let (services, client) = (informers.of(), informers.client().clone());
    tasks.spawn("host ports", host_ports::run(services, client, ground.doors));
    let runtimes = nodes.iter().map(|n| n.runtime.clone()).collect();
    crate::control::serve(&paths.control_socket(), runtimes, tasks)?;
    let names: Vec<String> = nodes.iter().map(|n| n.place.name.clone()).collect();
    ready(informers.client(), &names).await?;
    dns_answers(&nodes).await?;
    progress.step("node Ready, DNS answering");
    let record = Record {
        name: paths.name.clone(),
        pid: std::process::id(),
        server: ground.server,
        kubeconfig: paths.kubeconfig(),
        nodes: names,
    };
    write_private(&paths.record(), &serde_json::to_vec_pretty(&record)?)?;
    Ok(Running { plane, nodes })
}

/// The cluster is there, and nothing more is to be set up.
pub(super) fn announce(paths: &ClusterPaths, progress: &Progress) {
    say(&format!("{READY_LINE} after {:.2} s. Ctrl-C stops it.", progress.total()));
    say(&next_steps(paths));
}

/// Nameservers of the host that are not our own.
fn upstreams(places: &[Place]) -> Vec<SocketAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let mut own: Vec<IpAddr> = places.iter().flat_map(|p| p.addresses.clone()).collect();
    own.push(dns_address());
    dns::resolv::upstreams(&text, &own)
}

async fn control_plane(
    ground: &Ground,
    (paths, pki): (&ClusterPaths, &PkiFiles),
    loops: &Loops,
    tasks: &Tasks,
) -> Result<ControlPlane> {
    let options = Options {
        data_dir: paths.root.clone(),
        service_network: ServiceNetwork::parse(SERVICE_CIDR).map_err(anyhow::Error::msg)?,
        authorization: Authorization::usual(),
        resource_metrics: true,
        legacy: ground.legacy,
        event_ttl: EVENT_TTL,
        admission: apiserver::AdmissionOptions::default(),
        front_proxy: None,
        limits: apiserver::Limits::default(),
        auditor: None,
        tracer: None,
        serving: None,
        figures: Vec::new(),
        components: loops.checks(),
        etcd: None,
        encryption: None,
        authentication: Authentication::usual(),
        advertise: ground.advertise,
        addresses: ground.addresses.clone(),
        client_ca_pem: None,
        node_dialer: ground.dialer.clone(),
    };
    ControlPlane::start(options, pki, tasks).await
}

fn write_kubeconfig(paths: &ClusterPaths, pki: &PkiFiles, server: &str) -> Result<()> {
    let admin = pki.client("kubernetes-admin", Some("system:masters"))?;
    let name = format!("trireme-{}", paths.name);
    let text = pki::kubeconfig(&name, server, pki.ca_pem(), &Identity::Certificate(&admin));
    write_private(&paths.kubeconfig(), text.as_bytes())
}

/// Controllers and scheduler, on one set of informers.
async fn start_loops(
    loops: &Loops,
    plane: &ControlPlane,
    pki: &PkiFiles,
    tasks: &Tasks,
) -> Result<Informers> {
    let client = plane.client(
        "system:kube-controller-manager",
        &["system:masters"],
        "kube-controller-manager",
    );
    let informers = Informers::new(client, tasks.clone());
    loops.start(plane, &informers, pki).await?;
    Ok(informers)
}

async fn offer_demo(nodes: &[Node]) -> Result<()> {
    for node in nodes {
        let images = node.runtime.images();
        tokio::task::spawn_blocking(move || crate::demo::build_images(&images)).await??;
    }
    Ok(())
}

impl Running {
    /// Ends loops, pods and containers; data stays.
    pub(super) async fn stop(self, tasks: &Tasks, paths: &ClusterPaths) -> Result<()> {
        self.plane.drain(DRAIN_GRACE).await;
        tasks.shutdown().await;
        self.plane.close().await;
        for node in self.nodes {
            let Node { runtime, .. } = node;
            // The kubelet's tasks have ended, so this is the last holder, but for calls under way.
            match Arc::try_unwrap(runtime) {
                Ok(runtime) => runtime.reset().await.context("stop the containers")?,
                Err(_) => tracing::warn!("the runtime is still in use; `trireme down` cleans up"),
            }
        }
        protect::leave();
        super::leftovers::remove_cgroups(&paths.cgroup);
        super::lifecycle::unmount_below(&paths.root)
    }
}

pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
