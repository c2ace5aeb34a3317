//! `trireme kube-scheduler`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use client::Informers;

use super::component::{Connection, KubeconfigArg, block_on, lead};
use super::health::SecurePort;

/// Flags of upstream that this scheduler knows.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    connection: KubeconfigArg,
    #[command(flatten)]
    health: SecurePort,
    /// Work only while holding the lease kube-system/kube-scheduler.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true")]
    leader_elect: Option<bool>,
    /// Refused: the default profile is the only one.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs until interrupted.
pub(crate) fn run(args: Args) -> Result<()> {
    if let Some(path) = &args.config {
        bail!(
            "--config {}: this scheduler has the default profile only; leave the flag out",
            path.display()
        );
    }
    let connection = Connection::open(&args.connection.kubeconfig)?;
    let elect = (args.leader_elect != Some(false)).then_some("kube-scheduler");
    block_on(async move |tasks| {
        let client = connection.client(&tasks);
        if let Some(port) = args.health.open(10259, "kube-scheduler", client).await? {
            port.serve(&tasks);
        }
        let own = connection.clone();
        lead(&connection, &tasks, elect, move |term| {
            let informers = Informers::new(own.client(term), term.clone());
            scheduler::run(&informers, term, scheduler::Config::default());
            eprintln!("scheduling for {}", own.server());
        });
        Ok(())
    })
}
