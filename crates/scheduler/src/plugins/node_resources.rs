//! What resource scoring has in common: amounts of the resources that a strategy names.

use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::resources::Resources;

/// A resource that a strategy looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WeightedResource {
    pub(crate) name: String,
    pub(crate) weight: i64,
}

pub(crate) fn cpu_and_memory() -> Vec<WeightedResource> {
    let of = |name: &str| WeightedResource { name: name.into(), weight: 1 };
    vec![of("cpu"), of("memory")]
}

/// What a node has of a resource, what is taken, and what would be taken with the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Amounts {
    pub(crate) allocatable: i64,
    pub(crate) taken: i64,
    pub(crate) with_pod: i64,
}

/// Of a resource that counts for this pod and node. `estimated` counts something for containers that ask
/// for nothing.
pub(crate) fn amounts(
    pod: &PodInfo,
    node: &NodeInfo,
    resource: &str,
    estimated: bool,
) -> Option<Amounts> {
    let pick = |asked: &Resources, estimate: &Resources| match resource {
        "cpu" | "memory" if estimated => estimate.get(resource),
        _ => asked.get(resource),
    };
    let asked = pick(&pod.requests, &pod.estimate);
    let basic = matches!(resource, "cpu" | "memory" | "ephemeral-storage");
    if asked == 0 && !basic {
        return None;
    }
    let allocatable = node.allocatable.get(resource);
    let taken = pick(&node.requested, &node.estimated);
    (allocatable != 0).then_some(Amounts { allocatable, taken, with_pod: taken + asked })
}
