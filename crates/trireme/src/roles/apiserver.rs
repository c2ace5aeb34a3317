//! `trireme kube-apiserver`.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ::apiserver::{KubeletTls, Limits, NodeDialer, ServiceNetwork};
use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use client::Tasks;
use tokio::net::TcpStream;

use super::audit_flags::AuditFlags;
use super::certificate_flags::{CertificateFlags, kubelet_tls};
use crate::at_rest::{self, EncryptionFile};
use crate::authentication::{Authentication, AuthenticationFlags};
use crate::authorization::AuthorizationFlags;
use crate::certificates::{LiveKubeletTls, Reloads, figures};
use crate::component_checks;
use crate::control_plane::{ControlPlane, Options};
use crate::durations::go_duration;
use crate::pki_files::PkiFiles;
use crate::span_export;

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
    #[command(flatten)]
    certificates: CertificateFlags,
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
    /// Put changes of that file in force while the server runs.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    encryption_provider_config_automatic_reload: Option<bool>,
    /// Admission plugins that are on beside the usual ones, comma-separated.
    #[arg(long, value_delimiter = ',')]
    enable_admission_plugins: Vec<String>,
    /// Admission plugins that are off although they are on usually, comma-separated.
    #[arg(long, value_delimiter = ',')]
    disable_admission_plugins: Vec<String>,
    /// An AdmissionConfiguration, with the configuration of admission plugins.
    #[arg(long)]
    admission_control_config_file: Option<PathBuf>,
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
    /// A TracingConfiguration: where traces are sent by OTLP, and how many of the requests are traced.
    #[arg(long)]
    tracing_config_file: Option<PathBuf>,
    /// The API is that of v1.36; earlier ones are not emulated.
    #[arg(long = "emulated-version", value_delimiter = ',', value_name = "VERSION", value_parser = emulated_version)]
    _emulated_version: Vec<String>,
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

/// An entry of `--emulated-version`, `component=version` or a version: only the present one is there.
fn emulated_version(text: &str) -> Result<String, String> {
    let (component, version) = text.split_once('=').unwrap_or(("kube", text));
    if component != "kube" {
        return Err(format!("component not registered: {component}"));
    }
    match version.trim_start_matches('v') {
        "1.36" | "1.36.0" => Ok(text.to_owned()),
        _ => Err(format!("{version} cannot be emulated: this server has the API of v1.36 only")),
    }
}

fn etcd_options(args: &Args) -> Option<store::EtcdOptions> {
    (!args.etcd_servers.is_empty()).then(|| store::EtcdOptions {
        transformer: None,
        form: ::apiserver::STORED_FORM,
        servers: args.etcd_servers.clone(),
        ca_file: args.etcd_cafile.clone(),
        cert_file: args.etcd_certfile.clone(),
        key_file: args.etcd_keyfile.clone(),
        prefix: args.etcd_prefix.clone(),
        compaction_interval: args.etcd_compaction_interval,
    })
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
    let listener = listener::bind(bind).await.with_context(|| {
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
    let files = args.certificates.read(&pki)?;
    let kubelets = files.kubelet_tls()?;
    let reloads = Arc::<Reloads>::default();
    let limits = limits(&args)?;
    let auditor = args.audit.auditor(&tasks)?;
    let admission = admission(&args)?;
    let authorization = args.authorization.read()?;
    let encryption = encryption_file(&args)?;
    let tracer = tracer(&args, &tasks)?;
    let options = Options {
        auditor,
        tracer,
        etcd: etcd_options(&args),
        encryption,
        data_dir: args.data_dir,
        service_network: ServiceNetwork::parse(&args.service_cluster_ip_range)
            .map_err(|e| anyhow::anyhow!("--service-cluster-ip-range: {e}"))?,
        authorization,
        resource_metrics: args.resource_metrics,
        legacy: args.runtime_config.iter().any(|one| one.0),
        event_ttl: args.event_ttl,
        admission,
        front_proxy: files.front_proxy(),
        limits,
        authentication: Authentication {
            front_proxies: args.certificates.front_proxies()?,
            ..args.authentication.read()?
        },
        advertise: SocketAddr::new(ip, local.port()),
        addresses: vec![loopback, ip],
        serving: files.serving(),
        client_ca_pem: files.client_ca(),
        node_dialer: Arc::new(PlainDialer { tls: kubelets.clone() }),
        figures: vec![figures(reloads.clone())],
        components: component_checks::on_ports(),
    };
    let plane = ControlPlane::start(options, &pki, &tasks).await?;
    files.follow(&plane.certificates, kubelets, (&tasks, &reloads));
    plane.listen(listener);
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

fn admission(args: &Args) -> Result<::apiserver::AdmissionOptions> {
    let selection = ::apiserver::Selection {
        enabled: args.enable_admission_plugins.clone(),
        disabled: args.disable_admission_plugins.clone(),
    };
    let file = args.admission_control_config_file.as_deref();
    ::apiserver::AdmissionOptions::load(selection, file)
        .map_err(|why| anyhow::anyhow!("--admission-control-config-file: {why}"))
}

/// Records requests where a file asks for it.
fn tracer(args: &Args, tasks: &Tasks) -> Result<Option<Arc<traces::Tracer>>> {
    let read = args.tracing_config_file.as_deref().map(span_export::configuration);
    let Some(configuration) = read.transpose()? else { return Ok(None) };
    let instance = at_rest::server_name();
    let resource = [("service.name", "apiserver".into()), ("service.instance.id", instance)];
    Ok(Some(span_export::start(&configuration, &resource, tasks)))
}

fn encryption_file(args: &Args) -> Result<Option<EncryptionFile>> {
    let followed = args.encryption_provider_config_automatic_reload == Some(true);
    match &args.encryption_provider_config {
        None if followed => bail!(
            "--encryption-provider-config-automatic-reload must be set with --encryption-provider-config"
        ),
        file => Ok(file.clone().map(|path| EncryptionFile { path, followed })),
    }
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

/// Reaches nodes through the process's own network.
pub(crate) struct PlainDialer {
    tls: LiveKubeletTls,
}

impl PlainDialer {
    pub(crate) fn new(pki: &PkiFiles) -> Result<PlainDialer> {
        Ok(PlainDialer { tls: LiveKubeletTls::new(kubelet_tls(pki)?) })
    }
}

impl NodeDialer for PlainDialer {
    fn dial(
        &self,
        to: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = std::io::Result<TcpStream>> + Send>> {
        Box::pin(TcpStream::connect(to))
    }

    fn kubelet_tls(&self) -> KubeletTls {
        self.tls.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_versions_are_not_emulated() {
        for text in ["1.36", "v1.36", "kube=1.36"] {
            assert_eq!(emulated_version(text), Ok(text.to_owned()));
        }
        for (text, why) in [
            ("1.35", "1.35 cannot be emulated: this server has the API of v1.36 only"),
            ("kube=1.37", "1.37 cannot be emulated: this server has the API of v1.36 only"),
            ("other=1.36", "component not registered: other"),
        ] {
            assert_eq!(emulated_version(text), Err(why.to_owned()));
        }
    }

    #[test]
    fn versions_that_are_not_there_and_versions_that_cannot_go_are_refused() {
        let is_legacy = |text: &str| runtime_config(text).map(|one| one.0);
        for (text, legacy) in [
            ("legacy", true),
            ("legacy=true", true),
            ("legacy=false", false),
            ("api/ga=true", false),
            ("apps/v1", false),
            ("v1=true", false),
        ] {
            assert_eq!(is_legacy(text), Ok(legacy), "{text}");
        }
        for (text, why) in [
            ("nothing.example.com/v1=true", "unknown api groups nothing.example.com/v1"),
            ("apps/v9", "unknown api groups apps/v9"),
            ("", "unknown api groups "),
            ("apps/v1=false", "apps/v1=false: versions cannot be switched off here"),
            ("api/ga=false", "api/ga=false: versions cannot be switched off here"),
            ("api/all=false", "api/all=false: versions cannot be switched off here"),
            ("apps/v1=perhaps", "apps/v1: \"perhaps\" is neither true nor false"),
            ("legacy=", "legacy: \"\" is neither true nor false"),
        ] {
            assert_eq!(is_legacy(text), Err(why.to_owned()), "{text}");
        }
    }
}
