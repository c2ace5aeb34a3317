//! The scheduler: gives every pod without a node the best one there is.
//!
//! Informers keep the [`cache`] and the [`queue`] of pods that wait. The [`planner`] takes the most
//! important pod, brings its immutable [`snapshot`] up to date, and runs one scheduling cycle
//! ([`algorithm`]) of the pod's [`profile`]: the [`plugins`] filter and score nodes, and if none is left,
//! preemption looks for room. The pod counts on its node at once, and its binding runs beside the next
//! cycles. A pod that fits nowhere waits until a [cluster event](event) that the plugins that rejected it
//! take for a reason to try again.
//!
//! Cycles run off the async workers and under no lock. Their cost does not grow with the pods already
//! placed: counts by topology domain are kept up to date ([`index`]), and what looks at one node only is
//! remembered for equal pods.
//!
//! Not done: pod groups, storage capacity scoring, volumes of in-tree drivers as their CSI successors.

mod algorithm;
mod build;
mod cache;
mod census;
mod config;
mod core;
mod duration;
mod event;
mod extender;
mod figures;
mod framework;
mod index;
mod labels;
mod ledger;
mod node;
mod nominated;
#[doc(hidden)]
pub mod perf;
mod planner;
mod plugins;
mod pod;
mod pod_resources;
mod profile;
mod queue;
mod report;
mod resources;
mod scheduler;
mod snapshot;
mod store;
mod tally;
#[cfg(test)]
mod testing;

use std::sync::Arc;

use client::{Client, Informers, Tasks};

pub use census::{figures, pod_resources};
pub use config::Config;
pub use extender::{ExtenderConfig, ExtenderTls, ExtenderTransport, ManagedResource};

/// What the scheduler is started with.
#[derive(Debug, Default)]
pub struct Setup {
    pub config: Config,
    /// Writes go through this client; through the informers' when absent.
    pub client: Option<Client>,
    /// One for each extender of the configuration, in its order.
    pub extenders: Vec<Arc<dyn ExtenderTransport>>,
}

impl Setup {
    /// Starts scheduling; ends with `tasks`. Fails for a configuration whose plugins do not go together.
    pub fn start(self, informers: &Informers, tasks: &Tasks) -> Result<(), String> {
        scheduler::start(self, informers, tasks)
    }
}

/// Starts scheduling with a configuration that needs nothing else; ends with `tasks`.
pub fn run(informers: &Informers, tasks: &Tasks, config: Config) {
    let setup = Setup { config, ..Setup::default() };
    if let Err(why) = setup.start(informers, tasks) {
        tracing::error!(why, "the scheduler does not start");
    }
}

/// Reads a configuration file's tree and checks that its plugins go together.
pub fn load_config(tree: &serde_json::Value) -> Result<Config, String> {
    let config = Config::from_json(tree)?;
    build::profiles(&config, &build::Handle::default())?;
    Ok(config)
}
