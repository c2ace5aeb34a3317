//! `trireme kube-controller-manager`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use client::{Informers, Tasks};
use network::ipnet::IpNet;
use pki::{Authority, KeyPairPem, TokenIssuer};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;

use super::component::{Connection, KubeconfigArg, block_on, lead};
use super::health::SecurePort;
use crate::pki_files::TOKEN_ISSUER;

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
    /// Key (ECDSA P-256, PKCS#8) that tokens in Secrets are signed with: that of the API server. Without one
    /// nobody fills such Secrets.
    #[arg(long, value_name = "FILE")]
    service_account_private_key_file: Option<PathBuf>,
    /// PEM of the authority that signs certificate signing requests; without one nobody does.
    #[arg(long, value_name = "FILE", requires = "cluster_signing_key_file")]
    cluster_signing_cert_file: Option<PathBuf>,
    /// PEM of that authority's key.
    #[arg(long, value_name = "FILE", requires = "cluster_signing_cert_file")]
    cluster_signing_key_file: Option<PathBuf>,
    /// Longest life of a certificate that is signed, as Go writes durations.
    #[arg(long, default_value = "8760h0m0s", value_parser = crate::durations::go_duration)]
    cluster_signing_duration: Duration,
    /// Auto-generated token Secrets that were not used for so long are cleaned up.
    #[arg(long, default_value = "8760h0m0s", value_parser = crate::durations::go_duration)]
    legacy_service_account_token_clean_up_period: Duration,
    /// Feature gates, `Name=true` or `Name=false`; only the defaults of v1.36 are accepted.
    #[arg(long = "feature-gates", value_delimiter = ',', value_name = "GATES", value_parser = super::gates::gate)]
    _feature_gates: Vec<String>,
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
        authority: authority(args)?,
        tokens: args.service_account_private_key_file.as_deref().map(tokens).transpose()?.flatten(),
        signing_life: args.cluster_signing_duration,
        legacy_token_clean_up_period: clean_up_period(args)?,
        cluster_ca_pem,
        cluster_cidrs: cluster_cidrs(args)?,
        node_cidr_mask: args.node_cidr_mask_size,
        ..controllers::Config::default()
    };
    config.check().context("--controllers")?;
    Ok(config)
}

fn clean_up_period(args: &Args) -> Result<Duration> {
    let period = args.legacy_service_account_token_clean_up_period;
    if period.is_zero() {
        bail!("--legacy-service-account-token-clean-up-period must be longer than zero");
    }
    Ok(period)
}

fn authority(args: &Args) -> Result<Option<Arc<Authority>>> {
    let files = (&args.cluster_signing_cert_file, &args.cluster_signing_key_file);
    let (Some(cert), Some(key)) = files else { return Ok(None) };
    let read = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
    };
    let pair = KeyPairPem { cert_pem: read(cert)?, key_pem: read(key)? };
    let authority = Authority::load(pair).context("--cluster-signing-cert-file")?;
    Ok(Some(Arc::new(authority)))
}

/// The issuer of a key file. Keys that are none of ours (RSA) sign nothing, and the log says so.
fn tokens(path: &Path) -> Result<Option<Arc<TokenIssuer>>> {
    let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let key = match PrivatePkcs8KeyDer::from_pem_slice(&bytes) {
        Ok(key) => key.secret_pkcs8_der().to_vec(),
        Err(_) => bytes,
    };
    match TokenIssuer::new(TOKEN_ISSUER, &key) {
        Ok(issuer) => Ok(Some(Arc::new(issuer))),
        Err(error) => {
            let file = path.display();
            tracing::warn!(%file, %error, "no ECDSA P-256 key in PKCS#8: Secrets get no tokens");
            Ok(None)
        }
    }
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
