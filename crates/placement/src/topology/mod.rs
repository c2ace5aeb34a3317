//! The topology manager: one choice of NUMA nodes for all that a container, or a pod, requests.

mod merge;
mod options;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::machine::NumaNode;
use crate::mask::{Hint, NumaMask};
use crate::provider::Hints;

pub use options::{PolicyName, Scope, TopologyOptions};

/// What merging hints needs to know of the machine.
#[derive(Clone, Debug)]
pub(crate) struct Topology {
    pub(crate) policy: PolicyName,
    pub(crate) scope: Scope,
    options: TopologyOptions,
    nodes: Vec<usize>,
    /// From each node to all nodes, in the order of their ids.
    distances: BTreeMap<usize, Vec<u64>>,
}

impl Topology {
    pub(crate) fn new(
        policy: PolicyName,
        scope: Scope,
        options: TopologyOptions,
        nodes: &[NumaNode],
    ) -> Result<Topology, String> {
        let on = policy != PolicyName::None;
        if on && options.prefer_closest && nodes.iter().any(|n| n.distances.is_empty()) {
            return Err(
                "cannot discover NUMA topology: error getting NUMA distances from cadvisor".into(),
            );
        }
        let most = options.max_nodes;
        if on && nodes.len() > most {
            return Err(format!("unsupported on machines with more than {most} NUMA Nodes"));
        }
        let distances = nodes.iter().map(|n| (n.id, n.distances.clone())).collect();
        let nodes = nodes.iter().map(|n| n.id).collect();
        Ok(Topology { policy, scope, options, nodes, distances })
    }

    fn all(&self) -> NumaMask {
        NumaMask::of(self.nodes.iter().copied())
    }

    /// The best common choice, and whether the policy admits it.
    pub(crate) fn decide(&self, providers: &[Hints]) -> (Hint, bool) {
        let hints = merge::flatten(providers);
        match self.policy {
            PolicyName::None => (Hint::any(false), true),
            PolicyName::BestEffort => (self.merge(&hints), true),
            PolicyName::Restricted => {
                let best = self.merge(&hints);
                (best, best.preferred)
            }
            PolicyName::SingleNumaNode => {
                let mut best = self.merge(&merge::single_nodes(&hints));
                if best.nodes == Some(self.all()) {
                    best.nodes = None;
                }
                (best, best.preferred)
            }
        }
    }

    fn average_distance(&self, mask: NumaMask) -> f64 {
        let between = |from: usize, to: usize| {
            let list = self.distances.get(&from)?;
            let at = self.nodes.iter().position(|id| *id == to)?;
            list.get(at).copied()
        };
        let pairs = mask.nodes().flat_map(|a| mask.nodes().map(move |b| (a, b)));
        let all: Vec<f64> = pairs.map(|(a, b)| between(a, b).unwrap_or(0) as f64).collect();
        match all.is_empty() {
            true => 0.0,
            false => all.iter().sum::<f64>() / all.len() as f64,
        }
    }

    /// Whether the first of two different masks is the better one.
    fn is_better(&self, one: NumaMask, other: NumaMask) -> bool {
        let by_distance = self.options.prefer_closest && self.policy != PolicyName::SingleNumaNode;
        if by_distance && one.count() == other.count() {
            let (near, far) = (self.average_distance(one), self.average_distance(other));
            if near != far {
                return near < far;
            }
        }
        one.is_narrower_than(other)
    }
}
