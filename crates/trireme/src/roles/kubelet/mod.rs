//! `trireme kubelet`: the node agent with the embedded runtime, on the host's own network.
//!
//! Its process has neither proxy nor DNS: Services are kube-proxy's, and `--cluster-dns` must be
//! answered by somebody. Containers outlive it and are found again at the next start.

mod credentials;
mod foreign;
pub(crate) mod network;
mod placement;
mod reserved;
mod settings;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::kubelet::{Amount, Deps, EvictionConfig, Kubelet, KubeletConfig, StaticPods, Thresholds};
use ::network::ipnet::IpNet;
use ::runtime::{Config as RuntimeConfig, Embedded};
use anyhow::{Context, Result, bail};
use clap::Parser;
use client::{Client, Tasks};
use k8s_openapi::api::core::v1::Taint;
use pki::{Authority, CertSpec, KeyPairPem};
use tokio::sync::watch;

use self::network::{LateNetwork, Ranges};
use self::settings::Settings;
pub(crate) use self::settings::millis;
use super::component::{self, Connection, KubeconfigArg, block_on, hostname};
use super::health::HealthPort;
use crate::certificates::Followed;
use crate::cluster::folder::make_private;
use crate::cluster::node::server_tls;
use crate::durations::go_duration;
use crate::kubeconfig::server_ip;
use crate::pki_files::save_pair;
use crate::runtime_flags::RuntimeFlags;
use crate::span_export;

/// Where cgroups are mounted.
pub(crate) const CGROUPS: &str = "/sys/fs/cgroup";

/// Flags of upstream that this agent knows.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    connection: KubeconfigArg,
    /// A KubeletConfiguration; flags win over it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A folder of more of them (*.conf), each joined with those before it.
    #[arg(long, value_name = "FOLDER")]
    config_dir: Option<PathBuf>,
    /// The Node's name; this machine's host name when absent.
    #[arg(long)]
    hostname_override: Option<String>,
    /// Pods' volumes, images and containers' layers; not on an overlay file system.
    #[arg(long, default_value = "/var/lib/kubelet")]
    root_dir: PathBuf,
    /// The cgroup that pods' cgroups are made in.
    #[arg(long, default_value = "/")]
    cgroup_root: String,
    /// Name servers of pods.
    #[arg(long, value_delimiter = ',', value_name = "IPS")]
    cluster_dns: Vec<IpAddr>,
    /// Domain of Services' names.
    #[arg(long, default_value = "cluster.local")]
    cluster_domain: String,
    /// The node's addresses; the one that the API server is reached from when absent.
    #[arg(long, value_delimiter = ',', value_name = "IPS")]
    node_ip: Vec<IpAddr>,
    /// Most pods at a time.
    #[arg(long, default_value_t = 110)]
    max_pods: u32,
    /// Labels the Node is registered with: key=value,…
    #[arg(long, value_delimiter = ',', value_parser = label)]
    node_labels: Vec<(String, String)>,
    /// Taints the Node is registered with: key=value:effect,…
    #[arg(long, value_delimiter = ',', value_parser = taint)]
    register_with_taints: Vec<Taint>,
    /// The CRI socket of another runtime (unix:///run/containerd/containerd.sock); the embedded one when absent.
    #[arg(long, value_name = "ENDPOINT", conflicts_with = "pod_cidr")]
    container_runtime_endpoint: Option<String>,
    /// The CRI socket of images, when it is another one.
    #[arg(long, value_name = "ENDPOINT", requires = "container_runtime_endpoint")]
    image_service_endpoint: Option<String>,
    /// Addresses of this node's pods; the Node's spec.podCIDRs when absent.
    #[arg(long, value_delimiter = ',', value_name = "CIDRS")]
    pod_cidr: Vec<IpNet>,
    /// PEM of the CA whose client certificates the node API accepts: the API server's is one.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["config", "config_dir"])]
    client_ca_file: Option<PathBuf>,
    /// PEM of the node API's certificate; made and self-signed when absent, which Trireme's own API
    /// server does not accept for logs and exec: it wants one of the cluster's CA.
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    tls_cert_file: Option<PathBuf>,
    /// PEM of its key.
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    tls_private_key_file: Option<PathBuf>,
    /// Port of the node API, on all addresses.
    #[arg(long, default_value_t = 10250)]
    port: u16,
    /// A folder of manifests of static pods, or one manifest.
    #[arg(long, value_name = "PATH")]
    pod_manifest_path: Option<PathBuf>,
    /// A URL of manifests of static pods.
    #[arg(long, value_name = "URL", value_parser = manifest_url)]
    manifest_url: Option<String>,
    /// Sent to that URL: name:value, as often as needed.
    #[arg(long, value_parser = header)]
    manifest_url_header: Vec<(String, String)>,
    /// How often the path is read when nothing tells of changes.
    #[arg(long, default_value = "20s", value_parser = frequency)]
    file_check_frequency: Duration,
    /// How often the URL is asked.
    #[arg(long, default_value = "20s", value_parser = frequency)]
    http_check_frequency: Duration,
    /// A container's log is put aside when it is longer: a quantity.
    #[arg(long, default_value = "10Mi", value_parser = bytes)]
    container_log_max_size: u64,
    /// Most files of a container's log.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..))]
    container_log_max_files: u32,
    /// Unused images go when the disk is fuller than this, in percent.
    #[arg(long, default_value_t = 85, value_parser = clap::value_parser!(u8).range(0..=100))]
    image_gc_high_threshold: u8,
    /// Until it is no fuller than this.
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u8).range(0..=100))]
    image_gc_low_threshold: u8,
    /// Pods end when less is available: memory.available<100Mi,nodefs.available<10%,… What is not
    /// named is not watched.
    #[arg(long)]
    eviction_hard: Option<Thresholds>,
    /// Pods end when less is available for some time, in the same form.
    #[arg(long)]
    eviction_soft: Option<Thresholds>,
    /// That time: memory.available=1m30s,…
    #[arg(long, value_name = "PERIODS")]
    eviction_soft_grace_period: Option<String>,
    /// So much more than the threshold must be free again: nodefs.available=500Mi,…
    #[arg(long, value_name = "AMOUNTS")]
    eviction_minimum_reclaim: Option<String>,
    /// A shortage that was seen counts as one for so long.
    #[arg(long, default_value = "5m0s", value_parser = go_duration)]
    eviction_pressure_transition_period: Duration,
    /// Longest grace of pods that end at a soft threshold, in seconds.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    eviction_max_pod_grace_period: i64,
    /// Kernel parameters that pods may set beside the safe ones: net.core.somaxconn,kernel.msg*,…
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    allowed_unsafe_sysctls: Vec<String>,
    #[command(flatten)]
    reserved: reserved::Args,
    #[command(flatten)]
    placement: placement::Args,
    #[command(flatten)]
    credentials: credentials::Args,
    #[command(flatten)]
    runtime: RuntimeFlags,
    /// Address that health is served on.
    #[arg(long, default_value = "127.0.0.1")]
    healthz_bind_address: IpAddr,
    /// Port of health, by HTTP; 0 serves none.
    #[arg(long, default_value_t = 10248)]
    healthz_port: u16,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected key=value")?;
    // The API server would refuse the whole Node.
    if let Some(why) = admission::node_labels::refusal(key) {
        return Err(why);
    }
    Ok((key.to_owned(), value.to_owned()))
}

fn manifest_url(text: &str) -> Result<String, String> {
    match text.starts_with("http://") || text.starts_with("https://") {
        true => Ok(text.to_owned()),
        false => Err("expected http:// or https://".to_owned()),
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected name:value")?;
    let (name, value) = (name.trim(), value.trim());
    match name.is_empty() || value.is_empty() {
        true => Err("neither the name nor the value may be empty".to_owned()),
        false => Ok((name.to_owned(), value.to_owned())),
    }
}

fn frequency(text: &str) -> Result<Duration, String> {
    match go_duration(text)? {
        Duration::ZERO => Err("must be greater than 0s".to_owned()),
        found => Ok(found),
    }
}

pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    match Amount::parse(text) {
        Some(Amount::Bytes(bytes)) => Ok(bytes),
        _ => Err("expected a quantity such as 10Mi".to_owned()),
    }
}

fn taint(text: &str) -> Result<Taint, String> {
    let (rest, effect) = text.rsplit_once(':').ok_or("expected key=value:effect")?;
    if !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
        return Err(format!("effect {effect:?} is not NoSchedule, PreferNoSchedule or NoExecute"));
    }
    let (key, value) = match rest.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (rest, None),
    };
    if key.is_empty() {
        return Err("the key is empty".to_owned());
    }
    Ok(Taint { key: key.to_owned(), value, effect: effect.to_owned(), time_added: None })
}

/// Runs until interrupted.
pub(crate) fn run(args: Args) -> Result<()> {
    let (args, settings) = with_files(args)?;
    foreign::check_endpoints(&args)?;
    let connection = Connection::open(&args.connection.kubeconfig)?;
    crate::doctor::require()?;
    block_on(async move |tasks| serve(args, settings, &connection, &tasks).await)
}

/// A command line of its own, for what files say.
#[derive(clap::Parser)]
#[command(no_binary_name = true)]
struct Line {
    #[command(flatten)]
    args: Args,
}

/// The flags again, behind those that the configuration files mean.
fn with_files(args: Args) -> Result<(Args, Settings)> {
    if args.config.is_none() && args.config_dir.is_none() {
        return Ok((args, Settings::default()));
    }
    let settings = settings::read(args.config.as_deref(), args.config_dir.as_deref())?;
    // The program and the command come before the flags.
    let given: Vec<String> = std::env::args().skip(2).collect();
    let line = Line::try_parse_from(settings.arguments(&given))?;
    Ok((line.args, settings))
}

async fn serve(
    args: Args,
    settings: Settings,
    connection: &Connection,
    tasks: &Tasks,
) -> Result<()> {
    let mut config = config(&args, connection)?;
    config.tracer = settings.tracing().map(|traced| {
        let host = ("host.name", config.hostname.clone());
        span_export::start(traced, &[("service.name", "kubelet".into()), host], tasks)
    });
    settings.apply(&mut config);
    args.credentials.apply(&mut config);
    args.reserved.apply(&mut config)?;
    args.placement.apply(&mut config, args.reserved.has_cgroups())?;
    make_private(&args.root_dir)?;
    let tls = live_tls(&args, &config, tasks)?;
    let at = SocketAddr::new(IpAddr::from([0, 0, 0, 0]), args.port);
    let listener = listener::bind(at).await.with_context(|| {
        format!("listen on {at}: choose another --port, or stop what uses this one")
    })?;
    let health = SocketAddr::new(args.healthz_bind_address, args.healthz_port);
    let health = HealthPort::plain(health, ("kubelet", "--healthz-port"), [true, false]).await?;
    let client = connection.client(tasks);
    let (runtime, images) = match &args.container_runtime_endpoint {
        Some(endpoint) => {
            config.cgroups.makes_pods = true;
            config.seccomp_root = Some(args.root_dir.join("seccomp"));
            let images = args.image_service_endpoint.as_deref();
            foreign::runtime(endpoint, images, tasks).await?
        }
        None => embedded(&args, &client, &config.node_name, tasks).await?,
    };
    let deps = Deps {
        authorizer: Arc::new(::kubelet::ApiReviews::new(client.clone(), &config.node_name)),
        client,
        images,
        runtime,
        dialer: Arc::new(::kubelet::PlainDialer),
        services: None,
    };
    let name = config.node_name.clone();
    let agent = Kubelet::new(config, deps, tasks).map_err(anyhow::Error::msg)?;
    let agent = Arc::new(agent);
    let server = agent.clone();
    tasks.spawn("kubelet server", async move { server.serve_live(listener, tls).await });
    tasks.spawn("kubelet", async move { agent.run().await });
    health.into_iter().for_each(|port| port.serve(tasks));
    eprintln!("node {name} works for {}", connection.server());
    Ok(())
}

/// The runtime that is part of this program.
async fn embedded(
    args: &Args,
    client: &Client,
    node: &str,
    tasks: &Tasks,
) -> Result<foreign::Services> {
    let ranges = match args.pod_cidr.is_empty() {
        true => Ranges::OfNode { client: client.clone(), name: node.to_owned() },
        false => Ranges::Given(args.pod_cidr.clone()),
    };
    let network = LateNetwork::new(ranges, args.root_dir.join("ipam.json"), tasks);
    let mut folders = RuntimeConfig::new(args.root_dir.join("runtime"), args.root_dir.join("run"));
    folders.cgroup_parent = below(&args.cgroup_root, "trireme");
    args.runtime.read()?.apply(&mut folders);
    let runtime = Embedded::open(folders, Arc::new(network)).await;
    let runtime = Arc::new(runtime.context("open the container runtime")?);
    offer_images(&args.root_dir, &runtime, tasks).await?;
    Ok((runtime.clone(), runtime))
}

/// The demo image is there as in `up`, and `trireme image` reaches this node: `--name` is the last
/// part of the root folder, `TRIREME_ROOT` the rest.
async fn offer_images(root: &Path, runtime: &Arc<Embedded>, tasks: &Tasks) -> Result<()> {
    let images = runtime.images();
    tokio::task::spawn_blocking(move || crate::demo::build_images(&images)).await??;
    crate::control::serve(&root.join("control.sock"), vec![runtime.clone()], tasks)
}

fn config(args: &Args, connection: &Connection) -> Result<KubeletConfig> {
    let mut config = KubeletConfig::new(args.hostname_override.clone().unwrap_or_else(hostname));
    config.hostname.clone_from(&config.node_name);
    config.root_dir.clone_from(&args.root_dir);
    config.node_ips = match args.node_ip.as_slice() {
        [] => vec![address_towards(connection.server())?],
        given => given.to_vec(),
    };
    config.cluster_dns.clone_from(&args.cluster_dns);
    config.cluster_domain.clone_from(&args.cluster_domain);
    config.max_pods = args.max_pods;
    config.labels = args.node_labels.iter().cloned().collect();
    config.taints.clone_from(&args.register_with_taints);
    config.port = args.port;
    config.log_max_bytes = args.container_log_max_size;
    config.log_max_files = args.container_log_max_files;
    config.image_gc_high_percent = args.image_gc_high_threshold;
    config.image_gc_low_percent = args.image_gc_low_threshold;
    config.eviction = eviction(args).map_err(anyhow::Error::msg)?;
    config.static_pods = StaticPods {
        path: args.pod_manifest_path.clone(),
        url: args.manifest_url.clone(),
        url_headers: args.manifest_url_header.clone(),
        file_check: args.file_check_frequency,
        http_check: args.http_check_frequency,
    };
    config.cgroup_root = below(&args.cgroup_root, "kubepods");
    config.component = crate::flags::component("kubelet");
    config.cgroups.mount = Some(CGROUPS.into());
    config.allow_sysctls(&args.allowed_unsafe_sysctls).map_err(anyhow::Error::msg)?;
    Ok(config)
}

fn eviction(args: &Args) -> Result<EvictionConfig, String> {
    let graces = args.eviction_soft_grace_period.as_deref().unwrap_or("");
    let config = EvictionConfig {
        hard: args.eviction_hard.clone().unwrap_or_default(),
        soft: args.eviction_soft.clone().unwrap_or_else(Thresholds::none),
        soft_grace: EvictionConfig::parse_graces(graces, go_duration)?,
        minimum_reclaim: EvictionConfig::parse_reclaims(
            args.eviction_minimum_reclaim.as_deref().unwrap_or(""),
        )?,
        transition: args.eviction_pressure_transition_period,
        max_pod_grace_seconds: args.eviction_max_pod_grace_period,
    };
    config.check()?;
    Ok(config)
}

/// The path of a cgroup in another.
pub(crate) fn below(root: &str, name: &str) -> String {
    format!("/{}/{name}", root.trim_matches('/')).replace("//", "/")
}

/// The address this machine would speak to the server from.
fn address_towards(server: &str) -> Result<IpAddr> {
    let from = component::address_towards(server_ip(server)?)?;
    if from.is_loopback() {
        bail!(
            "the API server is on this machine's loopback, so the node's address is not known: give --node-ip"
        );
    }
    Ok(from)
}

/// Files of the node API's TLS, and what is in them: the authorities of clients, certificate and key.
fn tls_files(args: &Args, config: &KubeletConfig) -> Result<Followed> {
    let ca = args.client_ca_file.clone();
    let ca = ca.context("--client-ca-file, or authentication.x509.clientCAFile, is needed")?;
    let (cert, key) = match (&args.tls_cert_file, &args.tls_private_key_file) {
        (Some(cert), Some(key)) => (cert.clone(), key.clone()),
        _ => {
            let folder = args.root_dir.join("pki");
            self_signed(&folder, config)?;
            (folder.join("kubelet.crt"), folder.join("kubelet.key"))
        }
    };
    Ok(Followed { what: "node-api-tls", paths: vec![ca, cert, key] })
}

fn tls(texts: &[String]) -> Result<Arc<rustls::ServerConfig>> {
    let [ca, cert_pem, key_pem] = texts else { bail!("not three files") };
    let pair = KeyPairPem { cert_pem: cert_pem.clone(), key_pem: key_pem.clone() };
    server_tls(ca, &pair).context("the node API's certificates")
}

/// The node API's TLS, which follows its files.
fn live_tls(
    args: &Args,
    config: &KubeletConfig,
    tasks: &Tasks,
) -> Result<watch::Receiver<Arc<rustls::ServerConfig>>> {
    let files = tls_files(args, config)?;
    let texts = files.read()?;
    let (sender, live) = watch::channel(tls(&texts)?);
    tasks.spawn("node API certificates", async move {
        let apply = |texts: Vec<String>| {
            let made = tls(&texts).map(|tls| drop(sender.send_replace(tls)));
            async move { made }
        };
        files.follow(texts, Arc::default(), apply).await;
    });
    Ok(live)
}

/// A certificate of an authority that is forgotten at once.
fn self_signed(folder: &Path, config: &KubeletConfig) -> Result<KeyPairPem> {
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let authority = Authority::create(&format!("{}-ca", config.node_name))?;
    let names = [config.node_name.as_str()];
    let spec = CertSpec::server(&config.node_name, &names, &config.node_ips);
    let pair = authority.issue(&spec)?;
    save_pair(folder, "kubelet", &pair)?;
    Ok(pair)
}

#[cfg(test)]
mod tests;
