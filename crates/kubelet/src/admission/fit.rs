//! What a pod asks for, and whether the node has that much left.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::spec::quantity::{millis, units};
use crate::spec::resources::{limits as container_limits, requests as container_requests};
use crate::spec::{is_sidecar, spec_of};

/// By resource: CPU in thousandths, everything else in whole units.
pub(crate) type Requests = BTreeMap<String, i64>;

/// Resources that a pod as a whole may ask for.
const POD_LEVEL: [&str; 2] = ["cpu", "memory"];

/// A resource of which the node has not enough left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shortage {
    pub(super) name: String,
    requested: i64,
    used: i64,
    capacity: i64,
}

impl Shortage {
    pub(super) fn reason(&self) -> String {
        format!("OutOf{}", self.name)
    }

    pub(super) fn message(&self) -> String {
        format!(
            "Node didn't have enough resource: {}, requested: {}, used: {}, capacity: {}",
            self.name, self.requested, self.used, self.capacity
        )
    }

    pub(super) fn missing(&self) -> i64 {
        self.requested.saturating_sub(self.capacity.saturating_sub(self.used))
    }
}

fn value(name: &str, quantity: &Quantity) -> i64 {
    let read = if name == "cpu" { millis } else { units };
    i64::try_from(read(quantity).unwrap_or(0)).unwrap_or(i64::MAX)
}

fn list(of: Option<&BTreeMap<String, Quantity>>) -> Requests {
    of.into_iter().flatten().map(|(name, q)| (name.clone(), value(name, q))).collect()
}

fn add(into: &mut Requests, more: &Requests) {
    for (name, value) in more {
        let sum = into.entry(name.clone()).or_default();
        *sum = sum.saturating_add(*value);
    }
}

fn raise(into: &mut Requests, other: &Requests) {
    for (name, value) in other {
        let most = into.entry(name.clone()).or_default();
        *most = (*most).max(*value);
    }
}

/// At the pod's fullest: its containers together, or an init container beside the sidecars started
/// before it.
fn containers(pod: &Pod, of: fn(&Container) -> Option<&BTreeMap<String, Quantity>>) -> Requests {
    let spec = spec_of(pod);
    let mut all = Requests::new();
    for container in &spec.containers {
        add(&mut all, &list(of(container)));
    }
    let (mut sidecars, mut init) = (Requests::new(), Requests::new());
    for container in spec.init_containers.iter().flatten() {
        let own = list(of(container));
        if is_sidecar(container) {
            add(&mut all, &own);
            add(&mut sidecars, &own);
            raise(&mut init, &sidecars);
        } else {
            let mut beside = sidecars.clone();
            add(&mut beside, &own);
            raise(&mut init, &beside);
        }
    }
    raise(&mut all, &init);
    all
}

/// What the pod asks for; as a whole overrides what its containers do.
pub(crate) fn requests(pod: &Pod) -> Requests {
    let spec = spec_of(pod);
    let mut all = containers(pod, container_requests);
    let whole = list(spec.resources.as_ref().and_then(|r| r.requests.as_ref()));
    let supported = |name: &str| POD_LEVEL.contains(&name) || name.starts_with("hugepages-");
    all.extend(whole.into_iter().filter(|(name, _)| supported(name)));
    add(&mut all, &list(spec.overhead.as_ref()));
    all
}

/// What the pod's containers may use together; only what one of them limits is in it.
pub(crate) fn limits(pod: &Pod) -> Requests {
    containers(pod, container_limits)
}

/// Outside of Kubernetes' own names.
fn is_extended(name: &str) -> bool {
    name.split_once('/')
        .is_some_and(|(domain, _)| domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io"))
}

fn order(name: &str) -> (usize, &str) {
    const FIRST: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
    (FIRST.iter().position(|n| *n == name).unwrap_or(FIRST.len()), name)
}

pub(super) fn shortages(pod: &Pod, node: &Node, others: &[Arc<Pod>]) -> Vec<Shortage> {
    let capacity = list(node.status.as_ref().and_then(|s| s.allocatable.as_ref()));
    let mut short = Vec::new();
    let pods = i64::try_from(others.len()).unwrap_or(i64::MAX);
    let most = capacity.get("pods").copied().unwrap_or(0);
    if pods + 1 > most {
        short.push(Shortage { name: "pods".into(), requested: 1, used: pods, capacity: most });
    }
    let mut used = Requests::new();
    others.iter().for_each(|other| add(&mut used, &requests(other)));
    let wanted = requests(pod);
    let mut names: Vec<&String> = wanted.keys().filter(|n| *n != "pods").collect();
    names.sort_by_key(|name| order(name));
    for name in names {
        let known = capacity.get(name);
        // An extended resource that the node does not have belongs to the cluster.
        if known.is_none() && is_extended(name) {
            continue;
        }
        let (requested, capacity) = (wanted[name], known.copied().unwrap_or(0));
        let used = used.get(name).copied().unwrap_or(0);
        if requested > 0 && requested > capacity.saturating_sub(used) {
            short.push(Shortage { name: name.clone(), requested, used, capacity });
        }
    }
    short
}
