//! NodeResourcesFit: what the pod asks for must be free; the strategy says which free nodes are best.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};

use super::names;
use super::node_resources::{WeightedResource, amounts, cpu_and_memory};
use crate::event::{Action, ClusterEvent, Interest, Object, Resource};
use crate::framework::{Code, Cycle, Gap, MAX_NODE_SCORE, Plugin, Points, Status, Verdict};
use crate::node::NodeInfo;
use crate::pod::{PodInfo, node_of};
use crate::resources::{is_extended, pod_requests};
use crate::store::Listers;

/// Which of the nodes that would do is best.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Strategy {
    LeastAllocated,
    MostAllocated,
    /// Utilization in percent and its score, up to [`MAX_NODE_SCORE`], in increasing order.
    RequestedToCapacityRatio(Vec<(i64, i64)>),
}

#[derive(Debug)]
pub(crate) struct NodeResourcesFit {
    strategy: Strategy,
    resources: Vec<WeightedResource>,
    ignored: BTreeSet<String>,
    ignored_groups: BTreeSet<String>,
    listers: Arc<Listers>,
}

impl Default for NodeResourcesFit {
    fn default() -> NodeResourcesFit {
        NodeResourcesFit::new(Strategy::LeastAllocated, cpu_and_memory(), [], [], Arc::default())
    }
}

struct Shortage {
    name: String,
    missing: i64,
    allocatable: i64,
    /// More than the empty node has.
    exceeds_node: bool,
}

impl NodeResourcesFit {
    pub(crate) fn new(
        strategy: Strategy,
        resources: Vec<WeightedResource>,
        ignored: impl IntoIterator<Item = String>,
        ignored_groups: impl IntoIterator<Item = String>,
        listers: Arc<Listers>,
    ) -> NodeResourcesFit {
        let (ignored, ignored_groups) =
            (ignored.into_iter().collect(), ignored_groups.into_iter().collect());
        NodeResourcesFit { strategy, resources, ignored, ignored_groups, listers }
    }

    fn ignores(&self, name: &str) -> bool {
        let extended = name.contains('/')
            && !name.starts_with("kubernetes.io/")
            && !name.starts_with("requests.");
        let group = name.split('/').next().unwrap_or("");
        extended && (self.ignored.contains(name) || self.ignored_groups.contains(group))
    }

    /// Whether devices may stand for the resource where no device plugin has it.
    fn is_backed_by_devices(&self, name: &str) -> bool {
        is_extended(name) && self.listers.class_of_resource(name).is_some()
    }

    fn shortages<'a>(
        &'a self,
        pod: &'a PodInfo,
        node: &'a NodeInfo,
    ) -> impl Iterator<Item = Shortage> + 'a {
        let asked = pod.requests.nonzero().filter(|(_, amount)| *amount > 0);
        asked.filter(|(name, _)| !self.ignores(name)).filter_map(move |(name, asked)| {
            let allocatable = node.allocatable.get(name);
            if allocatable == 0 && self.is_backed_by_devices(name) {
                return None;
            }
            let free = allocatable - node.requested.get(name);
            (asked > free).then(|| Shortage {
                name: name.to_owned(),
                missing: asked - free,
                allocatable,
                exceeds_node: asked > allocatable,
            })
        })
    }

    /// Whether the pod would fit on the node were it empty.
    fn fits_empty(&self, pod: &PodInfo, node: &Arc<Node>) -> bool {
        let info = empty(node);
        info.pods_max >= 1 && self.shortages(pod, &info).next().is_none()
    }
}

/// The node without pods.
fn empty(node: &Arc<Node>) -> NodeInfo {
    let mut info = NodeInfo::new(0, "");
    info.set_node(node.clone());
    info
}

fn grew(pod: &PodInfo, old: &Arc<Node>, new: &Arc<Node>) -> bool {
    let (old, new) = (empty(old), empty(new));
    let more = |(name, _): (&str, i64)| new.allocatable.get(name) > old.allocatable.get(name);
    new.pods_max > old.pods_max || pod.requests.nonzero().any(more)
}

fn shrank(target: &PodInfo, old: &Pod, new: &Pod) -> bool {
    if new.metadata.uid == target.pod.metadata.uid {
        return true;
    }
    if node_of(new).is_none() {
        return false;
    }
    let (old, new) = (pod_requests(old), pod_requests(new));
    target.requests.nonzero().any(|(name, _)| old.get(name) > new.get(name))
}

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        names::NODE_RESOURCES_FIT
    }

    fn points(&self) -> Points {
        let filter = Points::PRE_FILTER.and(Points::FILTER);
        filter.and(Points::PRE_SCORE).and(Points::SCORE)
    }

    fn is_node_local(&self) -> bool {
        true
    }

    fn events(&self) -> &'static [Interest] {
        &[
            (Resource::Pod, Action::DELETE),
            (Resource::Pod, Action::POD_SCALE_DOWN),
            (Resource::Node, Action::ADD),
            (Resource::Node, Action::ALLOCATABLE),
            (Resource::DeviceClass, Action::ADD),
            (Resource::DeviceClass, Action::UPDATE),
        ]
    }

    fn queueing_hint(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        if matches!(event.object, Object::DeviceClass) {
            return pod.requests.scalar.keys().any(|name| is_extended(name));
        }
        match (event.pod(), event.node()) {
            (Some((Some(old), None)), _) => {
                let nominated = old.status.as_ref().and_then(|s| s.nominated_node_name.as_deref());
                node_of(old).is_some() || nominated.is_some_and(|n| !n.is_empty())
            }
            (Some((Some(old), Some(new))), _) => shrank(pod, old, new),
            (_, Some((old, Some(new)))) => {
                self.fits_empty(pod, new) && old.as_ref().is_none_or(|old| grew(pod, old, new))
            }
            _ => false,
        }
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Verdict {
        let mut reasons: Vec<Cow<'static, str>> = Vec::new();
        let mut code = Code::Unschedulable;
        if node.pods.len() + 1 > node.pods_max {
            reasons.push("Too many pods".into());
        }
        for shortage in self.shortages(cycle.pod, node) {
            if shortage.exceeds_node {
                code = Code::Unresolvable;
            }
            reasons.push(match shortage.name.as_str() {
                "cpu" => "Insufficient cpu".into(),
                "memory" => "Insufficient memory".into(),
                name => format!("Insufficient {name}").into(),
            });
        }
        if reasons.is_empty() {
            return Ok(());
        }
        Err(Arc::new(Status { code, plugin: self.name(), reasons }))
    }

    fn score(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
        let (mut sum, mut weights) = (0, 0);
        for resource in &self.resources {
            let Some(amounts) = amounts(cycle.pod, node, &resource.name, true) else { continue };
            let (capacity, requested) = (amounts.allocatable, amounts.with_pod);
            let score = match &self.strategy {
                Strategy::LeastAllocated => least(requested, capacity),
                Strategy::MostAllocated => requested.min(capacity) * MAX_NODE_SCORE / capacity,
                Strategy::RequestedToCapacityRatio(shape) => ratio(shape, requested, capacity),
            };
            let counts =
                score > 0 || !matches!(self.strategy, Strategy::RequestedToCapacityRatio(_));
            if counts {
                sum += score * resource.weight;
                weights += resource.weight;
            }
        }
        match (&self.strategy, weights) {
            (_, 0) => 0,
            (Strategy::RequestedToCapacityRatio(_), weights) => {
                (sum as f64 / weights as f64).round() as i64
            }
            (_, weights) => sum / weights,
        }
    }

    fn gap(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Option<Gap> {
        let (mut distance, mut parts) = (0.0, Vec::new());
        if node.pods.len() + 1 > node.pods_max {
            distance += 0.5;
            parts.push(format!("room for one more pod (it has {})", node.pods_max));
        }
        for shortage in self.shortages(cycle.pod, node) {
            // Beyond the empty node, other pods' end does not help: further than any shortage.
            let beyond = if shortage.exceeds_node { 1.0 } else { 0.0 };
            distance += beyond + shortage.missing as f64 / shortage.allocatable.max(1) as f64;
            let unit = if shortage.exceeds_node { " than it has in all" } else { "" };
            parts.push(format!("{} more {}{unit}", shown(&shortage), shortage.name));
        }
        (!parts.is_empty()).then(|| Gap { distance, remedy: parts.join(", ") })
    }
}

fn shown(shortage: &Shortage) -> String {
    use api::quantity::Quantity;
    match shortage.name.as_str() {
        "cpu" => Quantity::from_milli(shortage.missing).to_string(),
        "memory" | "ephemeral-storage" => Quantity::from_bytes(shortage.missing).to_string(),
        name if name.starts_with("hugepages-") => {
            Quantity::from_bytes(shortage.missing).to_string()
        }
        _ => shortage.missing.to_string(),
    }
}

fn least(requested: i64, capacity: i64) -> i64 {
    if requested > capacity { 0 } else { (capacity - requested) * MAX_NODE_SCORE / capacity }
}

fn ratio(shape: &[(i64, i64)], requested: i64, capacity: i64) -> i64 {
    let utilization = if requested > capacity { 100 } else { requested * 100 / capacity };
    broken_linear(shape, utilization)
}

/// The function through the points, flat before the first and after the last.
pub(crate) fn broken_linear(shape: &[(i64, i64)], at: i64) -> i64 {
    let mut before: Option<(i64, i64)> = None;
    for (x, y) in shape {
        if at <= *x {
            return match before {
                None => *y,
                Some((x0, y0)) => y0 + (y - y0) * (at - x0) / (x - x0),
            };
        }
        before = Some((*x, *y));
    }
    before.map_or(0, |(_, y)| y)
}
