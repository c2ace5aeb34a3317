//! `trireme kube-controller-manager`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use client::{Informers, Tasks};
use network::ipnet::IpNet;

use super::component::{Connection, KubeconfigArg, block_on, lead};
use super::health::SecurePort;

/// Flags of upstream that these controllers know.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    connection: KubeconfigArg,
    #[command(flatten)]
    health: SecurePort,
    /// Controllers to run: `*` for all, `name` to add one, `-name` to leave one out.
    #[arg(long, value_delimiter = ',', default_value = "*", allow_hyphen_values = true)]
    controllers: Vec<String>,
    /// Ranges that nodes' pod networks are cut from, at most one of each family.
    #[arg(long, value_delimiter = ',', value_name = "CIDRS")]
    cluster_cidr: Vec<IpNet>,
    /// Whether nodes get pod networks; without this flag they do when --cluster-cidr is given.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    allocate_node_cidrs: Option<bool>,
    /// Prefix length of a node's IPv4 pod network.
    #[arg(long, default_value_t = 24)]
    node_cidr_mask_size: u8,
    /// PEM of the CA published to pods; the kubeconfig's when absent.
    #[arg(long, value_name = "FILE")]
    root_ca_file: Option<PathBuf>,
    /// Accepted for compatibility and not read: tokens are signed by the API server alone.
    #[arg(long, value_name = "FILE")]
    service_account_private_key_file: Option<PathBuf>,
    /// Work only while holding the lease kube-system/kube-controller-manager.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true")]
    leader_elect: Option<bool>,
    /// Only false: all controllers use the kubeconfig's identity, which needs the rights of all.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    use_service_account_credentials: Option<bool>,
}

/// Runs until interrupted.
pub(crate) fn run(args: Args) -> Result<()> {
    if args.use_service_account_credentials == Some(true) {
        bail!(
            "--use-service-account-credentials=true is not supported: all controllers use the \
             kubeconfig's identity; leave the flag out and give that identity their rights"
        );
    }
    let connection = Connection::open(&args.connection.kubeconfig)?;
    let config = config(&args, &connection)?;
    let elect = (args.leader_elect != Some(false)).then_some("kube-controller-manager");
    block_on(async move |tasks| {
        let client = connection.client(&tasks);
        if let Some(port) = args.health.open(10257, "kube-controller-manager", client).await? {
            port.serve(&tasks);
        }
        let own = connection.clone();
        lead(&connection, &tasks, elect, move |term| start(&own, term, &config));
        Ok(())
    })
}

fn start(connection: &Connection, term: &Tasks, config: &controllers::Config) {
    let informers = Informers::new(connection.client(term), term.clone());
    if let Err(error) = controllers::run(&informers, term, config.clone()) {
        tracing::error!(%error, "controllers not started");
    } else {
        eprintln!("controllers are running against {}", connection.server());
    }
}

fn config(args: &Args, connection: &Connection) -> Result<controllers::Config> {
    let cluster_ca_pem = match &args.root_ca_file {
        None => connection.ca_pem()?,
        Some(path) => {
            std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?
        }
    };
    let config = controllers::Config {
        controllers: args.controllers.clone(),
        cluster_ca_pem,
        cluster_cidrs: cluster_cidrs(args)?,
        node_cidr_mask: args.node_cidr_mask_size,
        ..controllers::Config::default()
    };
    config.check().context("--controllers")?;
    Ok(config)
}

fn cluster_cidrs(args: &Args) -> Result<Vec<IpNet>> {
    let (mask, cidrs) = (args.node_cidr_mask_size, &args.cluster_cidr);
    if args.allocate_node_cidrs == Some(false) {
        return Ok(Vec::new());
    }
    if args.allocate_node_cidrs == Some(true) && cidrs.is_empty() {
        bail!("--allocate-node-cidrs needs --cluster-cidr");
    }
    let v4: Vec<_> = cidrs.iter().filter(|cidr| cidr.addr().is_ipv4()).collect();
    if v4.len() > 1 || cidrs.len() - v4.len() > 1 {
        bail!("--cluster-cidr: at most one range of each family");
    }
    if v4.iter().any(|cidr| mask < cidr.prefix_len() || mask > 32) {
        bail!("--node-cidr-mask-size {mask} must lie between the length of --cluster-cidr and 32");
    }
    Ok(cidrs.clone())
}
