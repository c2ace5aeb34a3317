//! `trireme up`: from nothing to a Ready node with DNS, step by step.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use apiserver::{AuthorizationModes, NodeDialer, ServiceNetwork};
use client::{Client, Informers, Tasks};
use k8s_openapi::api::core::v1::Node as NodeObject;
use network::{Fabric, FabricConfig, NetNs, PinDir};
use pki::Identity;
use tokio::net::{TcpListener, TcpStream};

use super::host_ports;
use super::node::{self, Node, Shared};
use super::paths::Record;
use super::progress::{Progress, say};
use super::{ClusterPaths, NameArg, SERVICE_CIDR, dns_address, pod_cidr, services};
use crate::control_plane::{ControlPlane, Options};
use crate::doctor;
use crate::pki_files::{PkiFiles, write_private};
use crate::roles::apiserver::{interrupted, kubelet_tls};

/// Where clients expect an API server.
const USUAL_PORT: u16 = 6443;
/// A node that takes longer than this to become Ready has a fault worth looking at.
const READY_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) cluster: NameArg,
    /// Number of nodes, each in a network namespace of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) nodes: u32,
    /// Return once the cluster is ready, and leave it running.
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Whether pods reach the outside: `nat` adds a link and a masquerading rule to the host.
    #[arg(long, default_value = "none", value_parser = ["nat", "none"])]
    pub(crate) egress: String,
    /// Port of the API server on the host's loopback; 6443, or a free one when that is taken.
    #[arg(long)]
    pub(crate) port: Option<u16>,
}

/// Runs the cluster in the foreground, or in a process of its own.
pub(crate) fn up(args: UpArgs) -> Result<()> {
    let paths = ClusterPaths::new(&args.cluster.name)?;
    if let Some(record) = paths.running() {
        bail!(
            "cluster {:?} is running already (pid {}); `trireme down --name {}` ends it",
            paths.name,
            record.pid,
            paths.name
        );
    }
    doctor::require()?;
    if args.detach {
        return detached(&args, &paths);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(args, paths))
}

/// Starts this program again without `-d`, shows its progress, and leaves when it is ready.
fn detached(args: &UpArgs, paths: &ClusterPaths) -> Result<()> {
    use std::io::BufRead as _;
    use std::os::unix::process::CommandExt as _;
    std::fs::create_dir_all(&paths.root)
        .with_context(|| format!("create {}", paths.root.display()))?;
    let log = std::fs::File::create(paths.log())
        .with_context(|| format!("write {}", paths.log().display()))?;
    let mut command = std::process::Command::new("/proc/self/exe");
    command.arg0("trireme").args(["up", "--name", &paths.name, "--egress", &args.egress]);
    command.args(["--nodes", &args.nodes.to_string()]);
    if let Some(port) = args.port {
        command.args(["--port", &port.to_string()]);
    }
    // A process group of its own: the terminal's Ctrl-C is not for it.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).process_group(0);
    let mut child = command.spawn().context("start the cluster's process")?;
    let output = child.stdout.take().context("the cluster's output")?;
    for line in std::io::BufReader::new(output).lines() {
        let line = line?;
        say(&line);
        if line.starts_with(READY_LINE) {
            say(&next_steps(paths));
            return Ok(());
        }
    }
    let status = child.wait()?;
    let log = std::fs::read_to_string(paths.log()).unwrap_or_default();
    bail!("the cluster did not start ({status}): {}", log.trim())
}

const READY_LINE: &str = "Cluster is ready";

fn next_steps(paths: &ClusterPaths) -> String {
    format!(
        "\nkubeconfig: {0}\n\nNext:\n  export KUBECONFIG={0}\n  kubectl create deployment hello --image=trireme.local/demo:v1\n  kubectl get pods -w",
        paths.kubeconfig().display()
    )
}

async fn run(args: UpArgs, paths: ClusterPaths) -> Result<()> {
    let tasks = Tasks::new();
    let cluster = start(&args, &paths, &tasks).await?;
    interrupted().await?;
    say(&format!("\nStopping; `trireme up --name {}` continues where this ends.", paths.name));
    cluster.stop(&tasks, &paths).await
}

struct Cluster {
    plane: ControlPlane,
    fabric: Fabric,
    nodes: Vec<Node>,
}

/// The API server's sockets: one on the host's loopback, one for the pods.
async fn listen(args: &UpArgs) -> Result<TcpListener> {
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match args.port {
        Some(port) => TcpListener::bind(at(port)).await.with_context(|| {
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

async fn start(args: &UpArgs, paths: &ClusterPaths, tasks: &Tasks) -> Result<Cluster> {
    let mut progress = Progress::new();
    say(&format!("Starting cluster {:?} with {} node(s)", paths.name, args.nodes));
    std::fs::create_dir_all(&paths.root)
        .with_context(|| format!("create {}", paths.root.display()))?;
    let pki = PkiFiles::open(&paths.root.join("pki"))?;
    progress.step("keys and certificates");

    let (mut fabric, uplinks) = join_nodes(args, paths).await?;
    progress.step("node networks");
    if args.egress == "nat" {
        egress(paths, &mut fabric, args.nodes);
    }

    let first = uplinks.first().context("a cluster has a node")?;
    let listener = listen(args).await?;
    let server = format!("https://{}", listener.local_addr()?);
    let plane = control_plane(paths, &pki, first, tasks).await?;
    plane.listen(listener)?;
    plane.listen(network::netns::tcp_listen(
        Some(&first.ns),
        SocketAddr::new(first.addresses[0], USUAL_PORT),
    )?)?;
    progress.step("API server and store");

    write_kubeconfig(paths, &pki, &server)?;
    let informers = start_loops(&plane, &pki, tasks).await?;
    progress.step("controllers and scheduler");

    let index = services::start_index(&informers).await;
    let upstreams = upstreams(&uplinks);
    let shared =
        Shared { paths, plane: &plane, pki: &pki, informers: &informers, index, upstreams, tasks };
    let mut nodes = Vec::new();
    for (index, uplink) in uplinks.into_iter().enumerate() {
        nodes.push(node::start(&shared, index as u32, uplink).await?);
    }
    progress.step("container runtime, kubelet, service proxy, DNS");
    route_pods(&fabric, &nodes)?;
    offer_demo(&nodes).await?;
    progress.step("demo image trireme.local/demo:v1, :v2");

    let door = nodes.first().context("a cluster has a node")?;
    let address =
        door.uplink.addresses.first().copied().context("the first node has no address")?;
    let (services, client) = (informers.of(), informers.client().clone());
    tasks.spawn("host ports", host_ports::run(services, client, door.uplink.ns.clone(), address));
    let runtimes = nodes.iter().map(|n| n.runtime.clone()).collect();
    crate::control::serve(&paths.control_socket(), runtimes, tasks)?;
    let names: Vec<String> = nodes.iter().map(|n| n.name.clone()).collect();
    ready(informers.client(), &names).await?;
    dns_answers(&nodes).await?;
    progress.step("node Ready, DNS answering");
    let record = Record {
        name: paths.name.clone(),
        pid: std::process::id(),
        server,
        kubeconfig: paths.kubeconfig(),
        nodes: names,
    };
    write_private(&paths.record(), &serde_json::to_vec_pretty(&record)?)?;
    say(&format!("{READY_LINE} after {:.2} s. Ctrl-C stops it.", progress.total()));
    say(&next_steps(paths));
    Ok(Cluster { plane, fabric, nodes })
}

async fn join_nodes(args: &UpArgs, paths: &ClusterPaths) -> Result<(Fabric, Vec<network::Uplink>)> {
    let (folder, name, count) = (paths.namespaces(), paths.name.clone(), args.nodes);
    let joined = tokio::task::spawn_blocking(move || -> Result<_> {
        let mut fabric = Fabric::create(PinDir::open(folder)?, FabricConfig::new(name))?;
        let uplinks =
            (0..count).map(|index| fabric.add_node(index)).collect::<Result<Vec<_>, _>>()?;
        for uplink in &uplinks {
            uplink.ns.loopback_up()?;
        }
        Ok((fabric, uplinks))
    });
    joined.await?.context("make the nodes' networks")
}

/// Says so and goes on when pods cannot reach the outside.
fn egress(paths: &ClusterPaths, fabric: &mut Fabric, nodes: u32) {
    let number = paths.name.bytes().fold(0u16, |n, b| n.wrapping_mul(31).wrapping_add(b.into()));
    let config = network::EgressConfig::new(paths.name.clone(), number);
    let enabled = network::EgressNat::enable(fabric, None, &config).map_err(anyhow::Error::from);
    let routed =
        enabled.and_then(|_| (0..nodes).try_for_each(|index| Ok(fabric.set_default_route(index)?)));
    if let Err(error) = routed {
        say(&format!("          pods will not reach the outside: {error}"));
    }
}

/// Nameservers of the host that are not our own.
fn upstreams(uplinks: &[network::Uplink]) -> Vec<SocketAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let mut own: Vec<IpAddr> = uplinks.iter().flat_map(|u| u.addresses.clone()).collect();
    own.push(dns_address());
    dns::resolv::upstreams(&text, &own)
}

async fn control_plane(
    paths: &ClusterPaths,
    pki: &PkiFiles,
    first: &network::Uplink,
    tasks: &Tasks,
) -> Result<ControlPlane> {
    let address = first.addresses.first().copied().context("the first node has no address")?;
    let options = Options {
        data_dir: paths.root.clone(),
        etcd: None,
        service_network: ServiceNetwork::parse(SERVICE_CIDR).map_err(anyhow::Error::msg)?,
        authorization: AuthorizationModes { node: true, rbac: true, always_allow: false },
        token_file: None,
        advertise: SocketAddr::new(address, USUAL_PORT),
        addresses: vec![Ipv4Addr::LOCALHOST.into(), address],
        client_ca_pem: None,
        node_dialer: Arc::new(InsideDialer { ns: first.ns.clone(), tls: kubelet_tls(pki)? }),
    };
    ControlPlane::start(options, pki, tasks).await
}

/// Reaches every node and pod from the first node's namespace.
struct InsideDialer {
    ns: NetNs,
    tls: Arc<rustls::ClientConfig>,
}

impl NodeDialer for InsideDialer {
    fn dial(
        &self,
        to: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = std::io::Result<TcpStream>> + Send>> {
        let ns = self.ns.clone();
        Box::pin(async move { network::netns::tcp_connect(Some(&ns), to).await })
    }

    fn kubelet_tls(&self) -> Arc<rustls::ClientConfig> {
        self.tls.clone()
    }
}

fn write_kubeconfig(paths: &ClusterPaths, pki: &PkiFiles, server: &str) -> Result<()> {
    let admin = pki.client("kubernetes-admin", Some("system:masters"))?;
    let name = format!("trireme-{}", paths.name);
    let text = pki::kubeconfig(&name, server, pki.ca_pem(), &Identity::Certificate(&admin));
    write_private(&paths.kubeconfig(), text.as_bytes())
}

/// Controllers and scheduler, on one set of informers.
async fn start_loops(plane: &ControlPlane, pki: &PkiFiles, tasks: &Tasks) -> Result<Informers> {
    let client = plane.client(
        "system:kube-controller-manager",
        &["system:masters"],
        "kube-controller-manager",
    );
    let informers = Informers::new(client, tasks.clone());
    crate::loops::start(plane, &informers, pki, tasks).await?;
    Ok(informers)
}

/// Each node learns the way to the pods of the others.
fn route_pods(fabric: &Fabric, nodes: &[Node]) -> Result<()> {
    for (at, _) in nodes.iter().enumerate() {
        let others = nodes.iter().enumerate().filter(|(other, _)| *other != at);
        let routes: Result<Vec<_>> = others
            .map(|(other, node)| {
                let via =
                    node.uplink.addresses.first().copied().context("a node has no address")?;
                Ok((pod_cidr(other as u32).parse()?, via))
            })
            .collect();
        fabric.set_routes(at as u32, &routes?)?;
    }
    Ok(())
}

async fn offer_demo(nodes: &[Node]) -> Result<()> {
    for node in nodes {
        let images = node.runtime.images();
        tokio::task::spawn_blocking(move || crate::demo::build_images(&images)).await??;
    }
    Ok(())
}

/// Waits until every node says it is Ready.
async fn ready(client: &Client, names: &[String]) -> Result<()> {
    let is_ready = |node: &NodeObject| {
        let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
        conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
    };
    let id = <NodeObject as client::Resource>::id();
    let mut follower = client.follow(client::Follow {
        group: id.group.into(),
        version: id.version.into(),
        resource: id.resource.into(),
        ..client::Follow::default()
    });
    let mut waiting: Vec<&str> = names.iter().map(String::as_str).collect();
    let all = async {
        while !waiting.is_empty() {
            let Some(event) = follower.next().await else { return };
            if let client::FollowEvent::Put(object) = event
                && object.decode::<NodeObject>().is_ok_and(|n| is_ready(&n))
            {
                waiting.retain(|name| *name != object.meta().name.as_ref());
            }
        }
    };
    match tokio::time::timeout(READY_MAX, all).await {
        Ok(()) => Ok(()),
        Err(_) => bail!(
            "node(s) {} not Ready after {} s; see the log",
            waiting.join(", "),
            READY_MAX.as_secs()
        ),
    }
}

/// Asks each node's DNS for the API's own name, as a pod would.
async fn dns_answers(nodes: &[Node]) -> Result<()> {
    for node in nodes {
        let at = SocketAddr::new(dns_address(), 53);
        let stream = network::netns::tcp_connect(Some(&node.uplink.ns), at).await;
        stream.with_context(|| format!("reach DNS at {at} on {}", node.name))?;
    }
    Ok(())
}

impl Cluster {
    /// Ends pods, networks and processes; data stays.
    async fn stop(self, tasks: &Tasks, paths: &ClusterPaths) -> Result<()> {
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
        let (fabric, folder) = (self.fabric, paths.namespaces());
        tokio::task::spawn_blocking(move || -> Result<()> {
            fabric.remove()?;
            Ok(PinDir::open(folder)?.close()?)
        })
        .await??;
        super::leftovers::remove_cgroups(&paths.name);
        super::lifecycle::unmount_below(&paths.root)?;
        remove_file(&paths.record())
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
