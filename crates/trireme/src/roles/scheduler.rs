//! `trireme kube-scheduler`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use client::{Informers, Tasks};
use scheduler::{Config, ExtenderTransport, Setup};

use super::component::{Connection, block_on, lead};
use super::extender::HttpExtender;
use super::health::SecurePort;

/// Longest configuration file that is read.
const CONFIG_MAX: u64 = 4 << 20;

/// Flags of upstream that this scheduler knows.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Kubeconfig file with the API server's address and this component's identity. Required unless the
    /// configuration file names one.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    health: SecurePort,
    /// Work only while holding the lease kube-system/kube-scheduler. Without the flag the configuration
    /// file decides, and without that it is done.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    leader_elect: Option<bool>,
    /// KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1): profiles, plugins, extenders.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Feature gates, `Name=true` or `Name=false`; only the defaults of v1.36 are accepted.
    #[arg(long = "feature-gates", value_delimiter = ',', value_name = "GATES", value_parser = super::gates::gate)]
    _feature_gates: Vec<String>,
}

/// Runs until interrupted.
pub(crate) fn run(args: Args) -> Result<()> {
    let config = match &args.config {
        Some(path) => read(path).with_context(|| format!("--config {}", path.display()))?,
        None => Config::default(),
    };
    let named = Some(PathBuf::from(&config.kubeconfig)).filter(|p| !p.as_os_str().is_empty());
    let kubeconfig = args.kubeconfig.clone().or(named);
    let kubeconfig = kubeconfig.context("--kubeconfig is required: where is the API server?")?;
    let connection = Connection::open(&kubeconfig)?;
    let extenders = config.extenders().iter().map(HttpExtender::new);
    let extenders: Vec<Arc<dyn ExtenderTransport>> = extenders
        .map(|e| e.map(|e| Arc::new(e) as Arc<dyn ExtenderTransport>))
        .collect::<Result<_>>()
        .context("extenders")?;
    let elects = args.leader_elect.unwrap_or(config.leader_elect);
    let elect = elects.then_some("kube-scheduler");
    block_on(async move |tasks| {
        let client = connection.client(&tasks);
        if let Some(port) = args.health.open(10259, "kube-scheduler", client).await? {
            port.with_resources(Box::new(scheduler::pod_resources)).serve(&tasks);
        }
        let own = connection.clone();
        lead(&connection, &tasks, elect, move |term| start(&own, term, &config, &extenders));
        Ok(())
    })
}

fn start(
    connection: &Connection,
    term: &Tasks,
    config: &Config,
    extenders: &[Arc<dyn ExtenderTransport>],
) {
    let informers = Informers::new(connection.client(term), term.clone());
    let setup = Setup { config: config.clone(), client: None, extenders: extenders.to_vec() };
    match setup.start(&informers, term) {
        Ok(()) => eprintln!("scheduling for {}", connection.server()),
        Err(why) => eprintln!("the scheduler does not start: {why}"),
    }
}

fn read(path: &Path) -> Result<Config> {
    use std::io::Read as _;
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(CONFIG_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > CONFIG_MAX {
        return Err(anyhow!("longer than {CONFIG_MAX} bytes"));
    }
    let document = api::yaml::read(&text).map_err(|why| anyhow!(why))?;
    if let Some(twice) = document.duplicates.first() {
        return Err(anyhow!("strict decoding error: {twice}"));
    }
    scheduler::load_config(&document.value).map_err(|why| anyhow!(why))
}
