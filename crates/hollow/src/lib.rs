//! Hollow nodes: what the API sees of nodes and their pods, without any container. For tests of the control
//! plane at scale, against any API server.
//!
//! Every node has a Node object, a lease that is renewed, and a heartbeat. A pod that is bound to one becomes
//! Running and Ready at once, and goes when it is deleted. Annotations make pods end and nodes fall silent.

mod nodes;
mod plan;
mod pods;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use client::{Client, Informers, Tasks};

/// The label of a set's nodes; its value is the set's name.
pub const SET_LABEL: &str = "hollow.trireme.io/set";

/// A set of hollow nodes.
#[derive(Debug, Clone)]
pub struct Config {
    /// How many.
    pub nodes: u32,
    /// The set's name: its nodes are called `set-0`, `set-1`, ….
    pub set: String,
    /// What each node has, as quantities.
    pub cpu: String,
    pub memory: String,
    pub pods: u32,
    /// How often leases are renewed; nodes are given up after four times that.
    pub renew_every: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            nodes: 1,
            set: "hollow".into(),
            cpu: "8".into(),
            memory: "32Gi".into(),
            pods: 110,
            // The kubelet's.
            renew_every: Duration::from_secs(10),
        }
    }
}

impl Config {
    fn name(&self, index: u32) -> String {
        format!("{}-{index}", self.set)
    }

    /// The node's place in the set, if it is of the set.
    fn index(&self, node: &str) -> Option<u32> {
        let digits = node.strip_prefix(&*self.set)?.strip_prefix('-')?;
        let index: u32 = digits.parse().ok()?;
        (index < self.nodes && index.to_string() == digits).then_some(index)
    }
}

/// Starts the nodes; they end with `tasks`. Their objects stay.
pub fn start(client: &Client, tasks: &Tasks, config: Config) {
    let informers = Informers::new(client.clone(), tasks.clone());
    let config = Arc::new(config);
    nodes::start(client, &informers, tasks, &config);
    pods::start(client, &informers, tasks, &config);
}
