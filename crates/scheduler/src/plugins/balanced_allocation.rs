//! NodeResourcesBalancedAllocation: best where the pod evens out how much of each resource is used.

use super::names;
use super::node_resources::{WeightedResource, amounts, cpu_and_memory};
use crate::framework::{Cycle, MAX_NODE_SCORE, Plugin, Points, Preparing};
use crate::node::NodeInfo;

#[derive(Debug)]
pub(crate) struct BalancedAllocation {
    resources: Vec<WeightedResource>,
}

impl Default for BalancedAllocation {
    fn default() -> BalancedAllocation {
        BalancedAllocation::new(cpu_and_memory())
    }
}

impl BalancedAllocation {
    pub(crate) fn new(resources: Vec<WeightedResource>) -> BalancedAllocation {
        BalancedAllocation { resources }
    }
}

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        names::NODE_RESOURCES_BALANCED_ALLOCATION
    }

    fn points(&self) -> Points {
        Points::PRE_SCORE.and(Points::SCORE)
    }

    fn is_node_local(&self) -> bool {
        true
    }

    fn pre_score(&self, cycle: &mut Preparing<'_>, _: &[u32]) -> bool {
        // Pods that ask for nothing would gather on one node.
        self.resources.iter().any(|r| cycle.pod.requests.get(&r.name) != 0)
    }

    fn score(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
        let all = self.resources.iter();
        let all = all.filter_map(|r| amounts(cycle.pod, node, &r.name, false));
        let share = |taken: i64, allocatable: i64| (taken as f64 / allocatable as f64).min(1.0);
        let with = balance(all.clone().map(|a| share(a.with_pod, a.allocatable)));
        let without = balance(all.map(|a| share(a.taken, a.allocatable)));
        // The gain of the balance, which lies within half the range, around 75.
        MAX_NODE_SCORE / 2 + (MAX_NODE_SCORE / 2 + with - without) / 2
    }
}

/// The less the shares deviate from each other, the better.
fn balance(shares: impl Iterator<Item = f64> + Clone) -> i64 {
    let count = shares.clone().count();
    let mean = shares.clone().sum::<f64>() / count.max(1) as f64;
    let deviation = match count {
        0 | 1 => 0.0,
        2 => {
            let (least, most) = shares.fold((f64::MAX, f64::MIN), |(a, b), s| (a.min(s), b.max(s)));
            (most - least) / 2.0
        }
        _ => (shares.map(|s| (s - mean).powi(2)).sum::<f64>() / count as f64).sqrt(),
    };
    ((1.0 - deviation) * MAX_NODE_SCORE as f64) as i64
}
