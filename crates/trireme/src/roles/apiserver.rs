//! `trireme kube-apiserver`.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ::apiserver::{KubeletTls, Limits, NodeDialer, ServiceNetwork};
use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use client::Tasks;
use pki::KeyPairPem;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};

use super::audit_flags::AuditFlags;
use crate::authentication::AuthenticationFlags;
use crate::authorization::AuthorizationFlags;
use crate::control_plane::{ControlPlane, Options};
use crate::durations::go_duration;
use crate::pki_files::PkiFiles;

/// Flags of upstream that this server knows.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Port to serve HTTPS on.
    #[arg(long, default_value_t = 6443)]
    secure_port: u16,
    /// Address to listen on.
    #[arg(long, default_value = "0.0.0.0")]
    bind_address: IpAddr,
    /// Address published to members of the cluster; the bind address unless that is unspecified.
    #[arg(long)]
    advertise_address: Option<IpAddr>,
    /// Folder of the cluster's keys, made when absent.
    #[arg(long, default_value = "/var/lib/trireme/pki")]
    cert_dir: PathBuf,
    #[command(flatten)]
    authentication: AuthenticationFlags,
    /// PEM of the CA that signs client certificates; the cluster's own when absent.
    #[arg(long)]
    client_ca_file: Option<PathBuf>,
    /// PEM of the CA that signed kubelets' serving certificates; the cluster's own when absent.
    #[arg(long)]
    kubelet_certificate_authority: Option<PathBuf>,
    /// PEM of the certificate to show to kubelets; one of the cluster's own CA when absent.
    #[arg(long, requires = "kubelet_client_key")]
    kubelet_client_certificate: Option<PathBuf>,
    /// PEM of that certificate's key.
    #[arg(long, requires = "kubelet_client_certificate")]
    kubelet_client_key: Option<PathBuf>,
    /// Where the embedded store keeps its data.
    #[arg(long, default_value = "/var/lib/trireme/data")]
    data_dir: PathBuf,
    /// Comma-separated URLs of a real etcd, instead of the embedded store.
    #[arg(long, value_delimiter = ',')]
    etcd_servers: Vec<String>,
    /// PEM of the CA that signed etcd's certificates.
    #[arg(long, requires = "etcd_servers")]
    etcd_cafile: Option<PathBuf>,
    /// PEM of the certificate to show to etcd.
    #[arg(long, requires = "etcd_servers")]
    etcd_certfile: Option<PathBuf>,
    /// PEM of that certificate's key.
    #[arg(long, requires = "etcd_servers")]
    etcd_keyfile: Option<PathBuf>,
    /// What all keys in etcd start with.
    #[arg(long, default_value = "/registry")]
    etcd_prefix: String,
    /// CIDRs that Services get their addresses from, one a family.
    #[arg(long, default_value = "10.43.0.0/16")]
    service_cluster_ip_range: String,
    #[command(flatten)]
    authorization: AuthorizationFlags,
    /// An EncryptionConfiguration; without one, Secrets in the embedded store are encrypted with the
    /// key in the folder of the cluster's keys.
    #[arg(long)]
    encryption_provider_config: Option<PathBuf>,
    /// Admission plugins that are on beside the usual ones, comma-separated.
    #[arg(long, value_delimiter = ',')]
    enable_admission_plugins: Vec<String>,
    /// Admission plugins that are off although they are on usually, comma-separated.
    #[arg(long, value_delimiter = ',')]
    disable_admission_plugins: Vec<String>,
    /// An AdmissionConfiguration, with the configuration of admission plugins.
    #[arg(long)]
    admission_control_config_file: Option<PathBuf>,
    /// PEM of the authority that signed the front proxy's certificate; the cluster's own when absent.
    #[arg(long, requires_all = ["proxy_client_cert_file", "proxy_client_key_file"])]
    requestheader_client_ca_file: Option<PathBuf>,
    /// Common names of front proxies' certificates, comma-separated.
    #[arg(long, value_delimiter = ',')]
    requestheader_allowed_names: Vec<String>,
    /// PEM of the certificate that extension API servers are shown.
    #[arg(long, requires_all = ["requestheader_client_ca_file", "proxy_client_key_file"])]
    proxy_client_cert_file: Option<PathBuf>,
    /// PEM of that certificate's key.
    #[arg(long, requires_all = ["requestheader_client_ca_file", "proxy_client_cert_file"])]
    proxy_client_key_file: Option<PathBuf>,
    /// How long events are kept, as Go writes durations.
    #[arg(long, default_value = "1h0m0s", value_parser = go_duration)]
    event_ttl: Duration,
    /// Longest a request may take that is not a stream, as Go writes durations.
    #[arg(long, default_value = "1m0s", value_parser = go_duration)]
    request_timeout: Duration,
    /// How long former states can be listed at least, as Go writes durations; 0 is for as long as
    /// memory allows. etcd is compacted as often.
    #[arg(long, default_value = "5m0s", value_parser = go_duration)]
    etcd_compaction_interval: Duration,
    /// Seconds a watch lives at least when its client names no time; up to twice that.
    #[arg(long, default_value_t = 1800)]
    min_request_timeout: u64,
    /// Share places by priority levels; otherwise as the two flags below say.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_priority_and_fairness: Option<bool>,
    /// Reads worked on at a time; 0 is no limit.
    #[arg(long, default_value_t = 400)]
    max_requests_inflight: usize,
    /// Changes worked on at a time; 0 is no limit.
    #[arg(long, default_value_t = 200)]
    max_mutating_requests_inflight: usize,
    /// Connections held at a time; a quarter of them from one address. As many as fit into half of the
    /// memory limit, up to 8192, when absent.
    #[arg(long)]
    max_connections: Option<usize>,
    /// Resident memory from which requests are answered with 429, e.g. 512Mi; 0 is no limit. Four
    /// fifths of the cgroup's limit, or half of the machine's memory, when absent.
    #[arg(long, value_parser = bytes)]
    memory_limit: Option<u64>,
    /// How long everything is still answered after the signal to stop, while /readyz fails.
    #[arg(long, default_value = "0s", value_parser = go_duration)]
    shutdown_delay_duration: Duration,
    #[command(flatten)]
    audit: AuditFlags,
    /// `legacy`: serve the versions that Kubernetes served once. Every version of v1.36 is served anyway.
    #[arg(long, value_delimiter = ',', value_parser = runtime_config)]
    runtime_config: Vec<RuntimeConfig>,
    /// Serve metrics.k8s.io from the kubelets' figures, unless an APIService names another server for it.
    #[arg(long)]
    resource_metrics: bool,
    /// Accepted for compatibility; privileged containers are always allowed.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    allow_privileged: Option<bool>,
}

/// An entry of `--runtime-config`: whether it asks for the versions of the past.
#[derive(Debug, Clone)]
struct RuntimeConfig(bool);

fn runtime_config(text: &str) -> Result<RuntimeConfig, String> {
    let (key, value) = text.split_once('=').unwrap_or((text, "true"));
    let value: bool =
        value.parse().map_err(|_| format!("{key}: {value:?} is neither true nor false"))?;
    let is_served = |key: &str| {
        let mut rows = api::registry::Registry::built_in().rows().iter();
        key == "api/ga" || rows.any(|row| row.api_version() == key)
    };
    match (key, value) {
        ("legacy", value) => Ok(RuntimeConfig(value)),
        (key, true) if is_served(key) => Ok(RuntimeConfig(false)),
        (key, true) => Err(format!("unknown api groups {key}")),
        (key, false) => Err(format!("{key}=false: versions cannot be switched off here")),
    }
}

fn etcd_options(args: &Args) -> Option<store::EtcdOptions> {
    (!args.etcd_servers.is_empty()).then(|| store::EtcdOptions {
        seal: None,
        form: ::apiserver::STORED_FORM,
        servers: args.etcd_servers.clone(),
        ca_file: args.etcd_cafile.clone(),
        cert_file: args.etcd_certfile.clone(),
        key_file: args.etcd_keyfile.clone(),
        prefix: args.etcd_prefix.clone(),
        compaction_interval: args.etcd_compaction_interval,
    })
}

/// The front proxy's certificate, if flags give one.
fn front_proxy(args: &Args) -> Result<Option<::apiserver::FrontProxy>> {
    let files = (
        &args.requestheader_client_ca_file,
        &args.proxy_client_cert_file,
        &args.proxy_client_key_file,
    );
    let (Some(ca), Some(cert), Some(key)) = files else { return Ok(None) };
    Ok(Some(::apiserver::FrontProxy {
        ca_pem: read(ca)?,
        cert_pem: read(cert)?,
        key_pem: read(key)?,
        allowed_names: args.requestheader_allowed_names.clone(),
    }))
}

/// Serves until interrupted.
pub(crate) fn run(args: Args) -> Result<()> {
    if args.allow_privileged == Some(false) {
        bail!(
            "--allow-privileged=false is not supported; forbid privileged pods with Pod Security"
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(args))
}

async fn serve(args: Args) -> Result<()> {
    let tasks = Tasks::new();
    let bind = SocketAddr::new(args.bind_address, args.secure_port);
    let listener = TcpListener::bind(bind).await.with_context(|| {
        format!("listen on {bind}: choose another --secure-port, or stop what uses this one")
    })?;
    let local = listener.local_addr()?;
    let unspecified = args.bind_address.is_unspecified();
    let loopback: IpAddr = if args.bind_address.is_ipv4() {
        [127, 0, 0, 1].into()
    } else {
        [0u16, 0, 0, 0, 0, 0, 0, 1].into()
    };
    let ip =
        args.advertise_address.unwrap_or(if unspecified { loopback } else { args.bind_address });
    let pki = PkiFiles::open(&args.cert_dir)?;
    let client_ca_pem = args.client_ca_file.as_deref().map(read).transpose()?;
    let dialer = PlainDialer { tls: kubelet_tls_of(&args, &pki)? };
    let limits = limits(&args)?;
    let auditor = args.audit.auditor(&tasks)?;
    let selection = ::apiserver::Selection {
        enabled: args.enable_admission_plugins.clone(),
        disabled: args.disable_admission_plugins.clone(),
    };
    let front_proxy = front_proxy(&args)?;
    let file = args.admission_control_config_file.as_deref();
    let admission = ::apiserver::AdmissionOptions::load(selection, file)
        .map_err(|why| anyhow::anyhow!("--admission-control-config-file: {why}"))?;
    let authorization = args.authorization.read()?;
    let options = Options {
        auditor,
        etcd: etcd_options(&args),
        encryption: args.encryption_provider_config,
        data_dir: args.data_dir,
        service_network: ServiceNetwork::parse(&args.service_cluster_ip_range)
            .map_err(|e| anyhow::anyhow!("--service-cluster-ip-range: {e}"))?,
        authorization,
        resource_metrics: args.resource_metrics,
        legacy: args.runtime_config.iter().any(|one| one.0),
        event_ttl: args.event_ttl,
        admission,
        front_proxy,
        limits,
        authentication: args.authentication.read()?,
        advertise: SocketAddr::new(ip, local.port()),
        addresses: vec![loopback, ip],
        client_ca_pem,
        node_dialer: Arc::new(dialer),
    };
    let plane = ControlPlane::start(options, &pki, &tasks).await?;
    plane.listen(listener)?;
    eprintln!("serving on https://{local}");
    interrupted().await?;
    tokio::select! {
        () = stop(&plane, args.shutdown_delay_duration, args.request_timeout) => {}
        // Who asks twice is in a hurry.
        again = interrupted() => again?,
    }
    tasks.shutdown().await;
    plane.close().await;
    Ok(())
}

fn limits(args: &Args) -> Result<Limits> {
    let within = args.memory_limit.map_or_else(Limits::default, Limits::within);
    let limits = Limits {
        request_timeout: args.request_timeout,
        watch_min: Duration::from_secs(args.min_request_timeout),
        fairness: args.enable_priority_and_fairness != Some(false),
        reads: args.max_requests_inflight,
        changes: args.max_mutating_requests_inflight,
        history: args.etcd_compaction_interval,
        connections: args.max_connections.unwrap_or(within.connections),
        memory: within.memory,
    };
    if limits.fairness && limits.reads + limits.changes == 0 {
        bail!(
            "--max-requests-inflight and --max-mutating-requests-inflight must be greater than 0 together \
             when priority and fairness are enabled"
        );
    }
    Ok(limits)
}

/// A flag's number of bytes, as a quantity.
fn bytes(text: &str) -> Result<u64, String> {
    let quantity = api::quantity::Quantity::parse(text).map_err(|e| e.to_string())?;
    u64::try_from(quantity.value()).map_err(|_| "must not be negative".to_owned())
}

/// Upstream's order of shutdown: not ready, then nothing new, then everything under way.
async fn stop(plane: &ControlPlane, delay: Duration, grace: Duration) {
    plane.server.announce_end();
    tokio::time::sleep(delay).await;
    plane.drain(grace).await;
}

/// Resolves on Ctrl-C or SIGTERM.
pub(crate) async fn interrupted() -> Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => Ok(interrupt?),
        _ = terminate.recv() => Ok(()),
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

/// Reaches nodes through the process's own network.
pub(crate) struct PlainDialer {
    tls: KubeletTls,
}

impl PlainDialer {
    pub(crate) fn new(pki: &PkiFiles) -> Result<PlainDialer> {
        Ok(PlainDialer { tls: kubelet_tls(pki)? })
    }
}

/// Towards kubelets: as the flags say, and of the cluster's own where they say nothing.
fn kubelet_tls_of(args: &Args, pki: &PkiFiles) -> Result<KubeletTls> {
    let authority = args.kubelet_certificate_authority.as_deref().map(read).transpose()?;
    let pair = match (&args.kubelet_client_certificate, &args.kubelet_client_key) {
        (Some(cert), Some(key)) => KeyPairPem { cert_pem: read(cert)?, key_pem: read(key)? },
        _ => own_identity(pki)?,
    };
    tls_towards_kubelets(&pair, authority.as_deref().unwrap_or(pki.ca_pem()))
}

/// The API server's identity towards the kubelets of its own cluster.
pub(crate) fn kubelet_tls(pki: &PkiFiles) -> Result<KubeletTls> {
    tls_towards_kubelets(&own_identity(pki)?, pki.ca_pem())
}

/// Kubelets know the API server by this name. It has no groups, so that it is nobody for another API
/// server, and for this one: a node that gives a server's address as its own gains nothing.
fn own_identity(pki: &PkiFiles) -> Result<KeyPairPem> {
    pki.client("kube-apiserver-kubelet-client", None)
}

fn tls_towards_kubelets(pair: &KeyPairPem, authority_pem: &str) -> Result<KubeletTls> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority_pem.as_bytes()) {
        roots.add(certificate?).context("the kubelets' authority")?;
    }
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(pair.cert_pem.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes())?;
    Ok(KubeletTls::new(Some((chain?, key)), Some(roots))?)
}

impl NodeDialer for PlainDialer {
    fn dial(
        &self,
        to: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = std::io::Result<TcpStream>> + Send>> {
        Box::pin(TcpStream::connect(to))
    }

    fn kubelet_tls(&self) -> KubeletTls {
        self.tls.clone()
    }
}
