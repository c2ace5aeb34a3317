//! `trireme hollow`.

use std::time::Duration;

use anyhow::{Result, bail};

use super::component::{Connection, KubeconfigArg, block_on};

/// More nodes have no addresses of their own.
const NODES_MAX: u32 = 1_000_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    connection: KubeconfigArg,
    /// How many nodes.
    #[arg(long)]
    nodes: u32,
    /// The name of this set of nodes: they are called NAME-0, NAME-1, …, and have the label
    /// hollow.trireme.io/set=NAME.
    #[arg(long, default_value = "hollow", value_name = "NAME")]
    set: String,
    /// What each node has.
    #[arg(long, default_value = "8")]
    cpu: String,
    #[arg(long, default_value = "32Gi")]
    memory: String,
    /// How many pods each node takes.
    #[arg(long, default_value_t = 110)]
    pods: u32,
    /// How often each node renews its lease, as Go writes durations.
    #[arg(long, default_value = "10s", value_parser = crate::durations::go_duration)]
    renew_every: Duration,
}

/// Runs until interrupted; the nodes' objects stay.
pub(crate) fn run(args: Args) -> Result<()> {
    if args.nodes == 0 || args.nodes > NODES_MAX {
        bail!("--nodes {} must lie between 1 and {NODES_MAX}", args.nodes);
    }
    if args.renew_every < Duration::from_secs(1) {
        bail!("--renew-every must be at least 1s");
    }
    for (flag, text) in [("--cpu", &args.cpu), ("--memory", &args.memory)] {
        if let Err(why) = api::quantity::Quantity::parse(text) {
            bail!("{flag} {text}: {why}");
        }
    }
    let faults = api::names::dns_label(&args.set);
    if let Some(fault) = faults.first() {
        bail!("--set {}: {fault}", args.set);
    }
    let connection = Connection::open(&args.connection.kubeconfig)?;
    let config = hollow::Config {
        nodes: args.nodes,
        set: args.set,
        cpu: args.cpu,
        memory: args.memory,
        pods: args.pods,
        renew_every: args.renew_every,
    };
    block_on(async move |tasks| {
        eprintln!("{} hollow nodes are running against {}", config.nodes, connection.server());
        hollow::start(&connection.client(&tasks), &tasks, config);
        Ok(())
    })
}
